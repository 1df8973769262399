//! From sockets that listen on the caller's loopback interface to places inside.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::Builder;
use std::time::Duration;

use super::network::{ADMIN_PORT, Network, REDIS_PORT, SENTINEL_PORT};
use super::recipe::NODES;

/// How long a place inside may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Leads callers of the sockets to clients' port, the Sentinels' and the page's, in this order;
/// returns where callers find them.
///
/// # Errors
///
/// The system refuses a thread.
pub(super) fn open(network: &Network, doors: Vec<TcpListener>) -> io::Result<Vec<SocketAddr>> {
    let mut places = Vec::new();
    for (door, port) in doors.into_iter().zip([REDIS_PORT, SENTINEL_PORT, ADMIN_PORT]) {
        places.push(door.local_addr()?);
        let entries = network.entries(&NODES, port);
        Builder::new().name("rk-door".to_owned()).spawn(move || {
            for caller in door.incoming().flatten() {
                let entries = entries.clone();
                // Without a thread this caller is refused.
                let _ = Builder::new()
                    .name("rk-caller".to_owned())
                    .spawn(move || lead(caller, &entries));
            }
        })?;
    }
    Ok(places)
}

/// Joins a caller to the first place that answers, until both have ended.
fn lead(caller: TcpStream, entries: &[SocketAddr]) {
    let mut found = entries.iter().filter_map(|at| TcpStream::connect_timeout(at, PATIENCE).ok());
    let Some(place) = found.next() else { return };
    let (Ok(from), Ok(to)) = (caller.try_clone(), place.try_clone()) else { return };
    let back = Builder::new().name("rk-caller".to_owned()).spawn(move || pour(&place, &caller));
    if back.is_ok() {
        pour(&from, &to);
    }
}

/// Copies until the end of one, which then is the end of the other's half.
fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
