//! From the API server's answer to a change of a policy until the proxy enforces it.
use std::time::Duration;

use super::{
    probe::{Probe, Tool},
    world::World,
};
use crate::interop::{report::Report, session::Session};

const CHANGES: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("from a change to its enforcement");
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let measured = report
        .step(&format!("{CHANGES} changes of a policy are enforced"), 5 * MINUTE, changes(&probe, CHANGES))
        .await;
    if let Some(times) = measured {
        report.note(&summary(&times));
        // What else the machine did: without it the numbers say little.
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        report.note(&format!("{}, load average {}", world.described(), load.trim()));
    }
    Ok(())
}

/// One change after the other, each seen to be enforced; how long each took, sorted.
pub(super) async fn changes(probe: &Probe, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut session = Session::open(&probe.target).await?;
    let mut times = Vec::with_capacity(count);
    let mut tool = Tool::Echo;
    probe.change(&mut session, tool).await?;
    for _ in 0..count {
        tool = tool.other();
        times.push(probe.change(&mut session, tool).await?);
    }
    times.sort();
    Ok(times)
}

/// p50, p99 and the longest.
pub(super) fn summary(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0);
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms ({} changes)",
        ms(at(50)),
        ms(at(99)),
        ms(sorted.last()),
        sorted.len()
    )
}
