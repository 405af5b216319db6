//! Everything on the other end of a socket that goes wrong. Each ends in the answer that is documented; the process lives
//! and serves others; a metric names it; nothing that was refused, or never came to its end, reached a server.
mod authorizers;
mod backends;
mod bombs;
mod certificates;
mod clients;

use crate::support::World;

/// Others are served as if nothing had been.
pub(crate) async fn serves_others(world: &World) {
    let mut client = world.plain_client().await;
    assert_eq!(client.request("GET", "/svc/x", &[], "").await.unwrap().status.as_u16(), 200);
}
