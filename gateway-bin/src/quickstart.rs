//! `agentic-gateway quickstart`: the whole story in one process, over real sockets.
mod agent;
mod arrivals;
mod authorizer;
mod servers;
mod story;
mod table;
mod world;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use self::{
    agent::Session,
    story::{Call, Server, first_table, second_table},
    table::{Row, Table},
    world::{World, narrowed_rego},
};
use crate::cli::QuickstartArgs;

/// How soon a change of the authorizer's policy must show.
const CHANGE_SHOWS_WITHIN: Duration = Duration::from_secs(2);

/// Plays the story, prints its tables; exit 0 only if every row is as expected.
pub(crate) async fn run(args: &QuickstartArgs) -> anyhow::Result<ExitCode> {
    println!("Starting two MCP servers, an authorizer, a CA and the gateway ...");
    let mut world = World::start().await?;
    println!(
        "The gateway serves https://{} as {};\nthe agent is {}.\n",
        world.address,
        world.gateway_id(),
        world.agent_id()
    );

    let mut all_match = true;
    let local = world.open(Server::Local).await?;
    let remote = world.open(Server::Remote).await?;

    println!("The authorizer allows two repositories:\n");
    let first = first_table();
    let mut table = Table::begin(&first);
    for call in &first {
        all_match &= table.row(&make(&mut world, &local, &remote, call).await);
    }

    println!("\nNow its Rego allows one of them only. No policy of the gateway changes:\n");
    let changed = Instant::now();
    world.authorizer.replace(narrowed_rego())?;
    let second = second_table();
    let mut table = Table::begin(&second);
    for call in &second {
        all_match &= table.row(&make(&mut world, &local, &remote, call).await);
    }
    let took = changed.elapsed();
    println!("\nThe change showed within {} ms.", took.as_millis());
    all_match &= took < CHANGE_SHOWS_WITHIN;
    local.close().await;
    remote.close().await;
    match world.arrivals.check(first.iter().chain(&second)) {
        Ok(arrived) => {
            println!("{arrived} tool calls reached the servers: those that were allowed, and no other.")
        }
        Err(arrived) => {
            println!("THESE TOOL CALLS REACHED THE SERVERS, and not those that were allowed:\n{arrived}");
            all_match = false;
        }
    }

    println!("\nWith --filter-lists, the agent is not even shown what it may not call:\n");
    let filtered = world.filtering().await?;
    let call = story::filtered_list();
    let mut table = Table::begin(std::slice::from_ref(&call));
    all_match &= table.row(&filtered.make(&call).await?);

    if all_match {
        println!("\nEvery row is as expected.");
    } else {
        println!("\nSOME ROWS ARE NOT AS EXPECTED.");
    }
    if args.serve && all_match {
        world.authorizer.replace(world::rego())?;
        world.serve().await?;
    }
    world.stop().await;
    Ok(if all_match { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes one call, and finds in the gateway's log why it ended as it did.
async fn make(world: &mut World, local: &Session, remote: &Session, call: &Call) -> Row {
    let session = match call.server {
        Server::Local => local,
        Server::Remote => remote,
    };
    let answer = session.make(call).await;
    Row::new(call, &answer, &world.why(call))
}
