//! To come.
use super::world::World;
use crate::interop::report::Report;

pub(super) async fn run(_world: &mut World, _report: &mut Report) -> anyhow::Result<()> {
    Ok(())
}
