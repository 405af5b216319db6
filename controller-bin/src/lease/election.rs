//! Who leads: the rules alone, without clock or API server.
use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};

/// How long a Lease holds after a change of it was seen.
pub(super) fn lasts(spec: &LeaseSpec, default: Duration) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).map_or(default, Duration::from_secs)
}

/// Who holds a Lease.
pub(super) fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The state of one candidate. Times are since any moment, by a monotonic clock.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    seconds: i32,
    duration: Duration,
    /// The Lease as it was seen last, and since when it is so; `None`: there is none.
    seen: Option<(LeaseSpec, Duration)>,
    /// When the renewal was sent with which this one leads.
    renewed: Option<Duration>,
}

impl Election {
    /// A candidate that has seen nothing yet; `seconds` is how long its Lease holds.
    pub(super) fn new(identity: String, seconds: i32) -> Self {
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Self { identity, seconds, duration, seen: None, renewed: None }
    }

    /// The moment at which leading ends if nothing is renewed; `None`: this one does not lead.
    pub(super) fn leads_until(&self) -> Option<Duration> {
        Some(self.renewed? + self.duration * 2 / 3)
    }

    pub(super) fn leads(&self, now: Duration) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// Notes the Lease as the API server has it.
    pub(super) fn observe(&mut self, now: Duration, lease: Option<&LeaseSpec>) {
        if lease.and_then(holder) != Some(&self.identity) {
            self.renewed = None;
        }
        match (lease, &self.seen) {
            (Some(lease), Some((seen, _))) if lease == seen => {}
            (lease, _) => self.seen = lease.map(|lease| (lease.clone(), now)),
        }
    }

    /// Whether a Lease, as somebody says it is, is a reason to look at once: it takes the leadership away, or it is not the
    /// one that was seen last.
    pub(super) fn is_news(&self, now: Duration, lease: Option<&LeaseSpec>) -> bool {
        if self.leads(now) {
            return lease.and_then(holder) != Some(&self.identity);
        }
        lease != self.seen.as_ref().map(|(seen, _)| seen)
    }

    /// Since when the Lease that is another's may be taken, if it is another's.
    pub(super) fn free_at(&self) -> Option<Duration> {
        let (seen, at) = self.seen.as_ref()?;
        let other = holder(seen).filter(|holder| *holder != self.identity)?;
        (!other.is_empty()).then(|| *at + lasts(seen, self.duration))
    }

    /// What to write to lead, or to go on leading; `None`: the Lease is another's and holds.
    pub(super) fn claim(&self, now: Duration, wall: Timestamp) -> Option<LeaseSpec> {
        if self.free_at().is_some_and(|free_at| now < free_at) {
            return None;
        }
        let seen = self.seen.as_ref().map(|(seen, _)| seen);
        let own = seen.filter(|seen| holder(seen) == Some(&self.identity));
        let transitions = seen.map(|seen| seen.lease_transitions.unwrap_or(0));
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.seconds),
            renew_time: Some(MicroTime(wall)),
            acquire_time: own.and_then(|own| own.acquire_time.clone()).or(Some(MicroTime(wall))),
            lease_transitions: match (transitions, own) {
                (None, _) => Some(0),
                (Some(transitions), Some(_)) => Some(transitions),
                (Some(transitions), None) => Some(transitions.saturating_add(1)),
            },
            ..LeaseSpec::default()
        })
    }

    /// Notes that the API server has taken what was sent at `sent`.
    pub(super) fn written(&mut self, sent: Duration, lease: LeaseSpec) {
        self.renewed = Some(sent);
        self.seen = Some((lease, sent));
    }

    /// What to write so that another may lead at once; `None`: the Lease is another's.
    pub(super) fn release(lease: &LeaseSpec, identity: &str, wall: Timestamp) -> Option<LeaseSpec> {
        (holder(lease) == Some(identity)).then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..lease.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "me";

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lease(holder: &str, renewed: i64, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(wall(renewed))),
            acquire_time: Some(MicroTime(wall(1))),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    /// One observation after the other; then what is claimed at a moment: acquired at, transitions.
    #[track_caller]
    fn check(seen: &[(u64, Option<LeaseSpec>)], now: u64, expected: Option<(i64, i32)>) {
        let mut election = Election::new(ME.into(), 15);
        for (second, lease) in seen {
            election.observe(at(*second), lease.as_ref());
        }
        let claimed = election.claim(at(now), wall(1000));
        if let Some(claimed) = &claimed {
            assert_eq!(claimed.holder_identity.as_deref(), Some(ME));
            assert_eq!(claimed.lease_duration_seconds, Some(15));
            assert_eq!(claimed.renew_time, Some(MicroTime(wall(1000))));
        }
        let of =
            |spec: LeaseSpec| (spec.acquire_time.unwrap().0.as_second(), spec.lease_transitions.unwrap());
        assert_eq!(claimed.map(of), expected);
    }

    #[test]
    fn a_lease_is_claimed_when_it_is_free() {
        let other = |renewed| Some(lease("other", renewed, 4));
        // There is none.
        check(&[(0, None)], 0, Some((1000, 0)));
        // It was released.
        check(&[(0, Some(lease("", 9, 4)))], 0, Some((1000, 5)));
        check(&[(0, Some(LeaseSpec::default()))], 0, Some((1000, 1)));
        // Another's: 15 s after it was seen to change, whatever the time in it says.
        check(&[(0, other(9))], 0, None);
        check(&[(0, other(-9_000_000))], 14, None);
        check(&[(0, other(9_000_000))], 15, Some((1000, 5)));
        check(&[(0, other(9)), (14, other(9))], 15, Some((1000, 5)));
        check(&[(0, other(9)), (10, other(10))], 24, None);
        check(&[(0, other(9)), (10, other(10))], 25, Some((1000, 5)));
        check(&[(0, other(9)), (10, Some(lease("third", 9, 5)))], 24, None);
        // It went and came back.
        check(&[(0, other(9)), (5, None), (10, other(9))], 24, None);
        // As long as it says itself.
        check(&[(0, Some(LeaseSpec { lease_duration_seconds: Some(60), ..lease("other", 9, 4) }))], 59, None);
        for none in [None, Some(0), Some(-5)] {
            let other = LeaseSpec { lease_duration_seconds: none, ..lease("other", 9, 4) };
            check(&[(0, Some(other.clone()))], 14, None);
            check(&[(0, Some(other))], 15, Some((1000, 5)));
        }
        // One's own, of a process before this one: gone on with.
        check(&[(0, Some(lease(ME, 9, 4)))], 0, Some((1, 4)));
    }

    #[test]
    fn leading_ends_before_anybody_else_may_begin() {
        let mut election = Election::new(ME.into(), 15);
        election.observe(at(0), None);
        assert!(!election.leads(at(0)));
        let claimed = election.claim(at(0), wall(1)).unwrap();
        // Sent at 0, seen by another at once.
        election.written(at(0), claimed.clone());
        let mut other = Election::new("other".into(), 15);
        other.observe(at(0), Some(&claimed));
        for second in 0..10 {
            assert!(election.leads(at(second)), "{second}");
        }
        for second in 10..15 {
            assert!(!election.leads(at(second)) && other.claim(at(second), wall(2)).is_none(), "{second}");
        }
        assert!(other.claim(at(15), wall(2)).is_some());
        // A renewal in between.
        election.written(at(5), LeaseSpec { renew_time: Some(MicroTime(wall(5))), ..claimed });
        assert!(election.leads(at(14)) && !election.leads(at(15)));
    }

    #[test]
    fn a_leader_that_sees_another_leads_no_more() {
        for seen in [Some(lease("other", 9, 1)), Some(lease("", 9, 1)), None] {
            let mut election = Election::new(ME.into(), 15);
            election.written(at(0), lease(ME, 9, 0));
            election.observe(at(1), Some(&lease(ME, 9, 0)));
            assert!(election.leads(at(1)));
            election.observe(at(2), seen.as_ref());
            assert!(!election.leads(at(2)), "{seen:?}");
        }
    }

    #[test]
    fn what_is_worth_a_look() {
        let (mine, other) = (lease(ME, 9, 3), lease("other", 9, 3));
        let mut election = Election::new(ME.into(), 15);
        let news = |election: &Election, lease: Option<&LeaseSpec>| election.is_news(at(5), lease);
        assert!(!news(&election, None) && news(&election, Some(&other)));
        election.observe(at(0), Some(&other));
        assert!(!news(&election, Some(&other)));
        assert!(news(&election, Some(&lease("other", 14, 3))) && news(&election, Some(&mine)));
        assert!(news(&election, None));
        // Who leads renews it himself.
        election.written(at(4), mine.clone());
        assert!(!news(&election, Some(&mine)) && !news(&election, Some(&lease(ME, 4, 3))));
        assert!(news(&election, Some(&other)) && news(&election, None));
    }

    #[test]
    fn a_release_lets_another_lead_at_once() {
        let released = Election::release(&lease(ME, 9, 3), ME, wall(20)).unwrap();
        check(&[(0, Some(lease(ME, 9, 3))), (1, Some(released.clone()))], 1, Some((1000, 4)));
        assert_eq!(released.acquire_time, Some(MicroTime(wall(1))));
        assert_eq!(Election::release(&lease("other", 9, 3), ME, wall(20)), None);
        assert_eq!(Election::release(&lease("", 9, 3), "", wall(20)), None);
    }
}
