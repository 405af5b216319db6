//! Host names of listeners and routes.

/// The host names under which a route is reachable at a listener; empty: any. `None`: under none.
pub(super) fn intersection(listener: Option<&str>, route: &[String]) -> Option<Vec<String>> {
    let Some(listener) = listener else { return Some(route.to_vec()) };
    if route.is_empty() {
        return Some(vec![listener.to_owned()]);
    }
    let hosts: Vec<_> =
        route.iter().filter_map(|route| narrower(listener, route)).map(str::to_owned).collect();
    (!hosts.is_empty()).then_some(hosts)
}

/// The narrower of two patterns, if one lies within the other.
fn narrower<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// Whether every host of `inner` is one of `outer`. A leading `*.` stands for one or more labels.
fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        None => outer == inner,
        // `.example.com` must be the end, with something before it; the `*` of a narrower pattern counts as something.
        Some(suffix) => inner.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listener: Option<&str>, route: &[&str], expected: Option<&[&str]>) {
        let route: Vec<_> = route.iter().map(|&host| host.to_owned()).collect();
        let found = intersection(listener, &route);
        let expected = expected.map(|hosts| hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{listener:?} and {route:?}");
    }

    #[test]
    fn intersections() {
        check(None, &[], Some(&[]));
        check(None, &["a.example.com"], Some(&["a.example.com"]));
        check(Some("a.example.com"), &[], Some(&["a.example.com"]));
        check(Some("a.example.com"), &["a.example.com", "b.example.com"], Some(&["a.example.com"]));
        check(Some("a.example.com"), &["b.example.com"], None);
        check(Some("*.example.com"), &["a.example.com"], Some(&["a.example.com"]));
        check(Some("*.example.com"), &["a.b.example.com"], Some(&["a.b.example.com"]));
        check(Some("*.example.com"), &["example.com"], None);
        check(Some("*.example.com"), &["badexample.com"], None);
        check(Some("a.example.com"), &["*.example.com"], Some(&["a.example.com"]));
        check(Some("*.example.com"), &["*.b.example.com"], Some(&["*.b.example.com"]));
        check(Some("*.b.example.com"), &["*.example.com"], Some(&["*.b.example.com"]));
        check(Some("*.example.com"), &["*.example.com"], Some(&["*.example.com"]));
        check(Some("*.example.com"), &["*.example.org"], None);
    }
}
