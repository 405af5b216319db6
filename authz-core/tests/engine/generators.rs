//! Policies and requests at random, with the expressions that the naive evaluator knows; and how many of them.
use authz_core::PolicyEntry;
use proptest::{prelude::*, sample::select};

pub(crate) use generators::any_ask;

use crate::naive::{BROKEN, EXPRESSIONS};

pub(crate) fn any_policies() -> impl Strategy<Value = Vec<PolicyEntry>> {
    let expression = prop_oneof![
        60 => select(EXPRESSIONS.map(|(text, _)| text).to_vec()),
        1 => select(BROKEN.to_vec()),
    ];
    generators::any_policies(expression)
}

/// Ten thousand cases, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        given
    } else {
        ProptestConfig { cases: 10_000, ..given }
    }
}
