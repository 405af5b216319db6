//! Statuses of what the data plane of some Gateway cannot be told, in place of those that objects alone give.
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use policy_model::NamespacedName;
use xds_translate::{ObjectStatus, Scope};

/// The statuses, those that are refused at a Gateway with its conditions in place of their own of the same types. Other
/// ancestors of the same object stay as they are.
pub(super) fn with_refused<'s>(
    statuses: &'s [ObjectStatus],
    refused: &BTreeMap<NamespacedName, Arc<[ObjectStatus]>>,
) -> Cow<'s, [ObjectStatus]> {
    let mut all = Cow::Borrowed(statuses);
    for (gateway, refused) in refused {
        for refusal in refused.iter() {
            let is_it = |status: &ObjectStatus| {
                status.object == refusal.object && is_same(&status.scope, &refusal.scope)
            };
            let Some(place) = all.iter().position(is_it) else { continue };
            if let Some(status) = all.to_mut().get_mut(place) {
                overlay(status, refusal, gateway);
            }
        }
    }
    all
}

/// Whether they are of the same part. A backend is named in either of its groups.
fn is_same(one: &Scope, other: &Scope) -> bool {
    match (one, other) {
        (
            Scope::Ancestor { kind, name, section, .. },
            Scope::Ancestor { kind: other_kind, name: other_name, section: other_section, .. },
        ) => (kind, name, section) == (other_kind, other_name, other_section),
        _ => one == other,
    }
}

fn overlay(status: &mut ObjectStatus, refusal: &ObjectStatus, gateway: &NamespacedName) {
    for condition in &refusal.conditions {
        let mut condition = condition.clone();
        // Others may serve the same backend, and enforce the policy.
        if let Scope::Ancestor { kind, .. } = &status.scope
            && kind != "Gateway"
        {
            condition.message = format!("behind Gateway `{gateway}`: {}", condition.message);
        }
        match status.conditions.iter_mut().find(|known| known.r#type == condition.r#type) {
            // Of several Gateways the first one tells.
            Some(known) if known.reason == condition.reason && known.status == condition.status => {}
            Some(known) => *known = condition,
            None => status.conditions.push(condition),
        }
    }
}
