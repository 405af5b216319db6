//! Expressions that are compiled already. A change of one policy compiles a whole engine anew, and parsing its expressions
//! would take most of the time; nearly all of them are those of the engine before.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::node::Node;

/// Forgotten ones are swept out when there are twice as many as were in use, and no sooner than this.
const SWEEP: usize = 256;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// By text. What no engine holds any more is not held here.
struct Known {
    by_text: HashMap<Box<str>, Weak<Node>>,
    sweep_at: usize,
}

/// The compiled form of a text, if some engine holds it.
pub(super) fn find(source: &str) -> Option<Arc<Node>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.as_ref()?.by_text.get(source)?.upgrade()
}

/// Remembers a compiled form for as long as somebody holds it.
pub(super) fn remember(source: &str, node: &Arc<Node>) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(|| Known { by_text: HashMap::new(), sweep_at: SWEEP });
    if known.by_text.len() >= known.sweep_at {
        known.by_text.retain(|_, node| node.strong_count() > 0);
        known.sweep_at = known.by_text.len().saturating_mul(2).max(SWEEP);
    }
    known.by_text.insert(source.into(), Arc::downgrade(node));
}

#[cfg(test)]
mod tests {
    use crate::cel::{Expression, value::Value};

    use super::*;

    #[test]
    fn held_as_long_as_an_engine_holds_it() {
        let source = "request.mcp.tool_name == 'held_as_long_as_an_engine_holds_it'";
        assert!(find(source).is_none());
        let one = Expression::compile(source).unwrap();
        let other = Expression::compile(source).unwrap();
        assert!(one.is(&other), "compiled once");
        drop(one);
        assert!(find(source).is_some());
        drop(other);
        assert!(find(source).is_none());
    }

    #[test]
    fn what_nobody_holds_is_swept_out() {
        const HELD: usize = 2 * SWEEP;
        let text = |kind: &str, n: usize| format!("what_nobody_holds_is_swept_out: {kind} {n}");
        let node = || Arc::new(Node::Literal(Value::Null));
        let held: Vec<_> = (0..HELD).map(|n| (text("held", n), node())).collect();
        for (source, node) in &held {
            remember(source, node);
        }
        for n in 0..20 * HELD {
            remember(&text("dropped", n), &node());
        }
        let known = KNOWN.lock().unwrap().as_ref().unwrap().by_text.len();
        // Twice what is in use; other tests hold few.
        assert!((HELD..3 * HELD).contains(&known), "{known}");
        for (source, node) in &held {
            assert!(find(source).is_some_and(|found| Arc::ptr_eq(&found, node)), "`{source}`");
        }
    }

    #[test]
    fn what_does_not_compile_is_not_remembered() {
        let source = "request.nothing == 'what_does_not_compile_is_not_remembered'";
        Expression::compile(source).unwrap_err();
        assert!(find(source).is_none());
    }
}
