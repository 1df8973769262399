//! Somebody who subscribes to everything that one Sentinel publishes.

use std::net::SocketAddr;
use std::time::Duration;

use super::process::{Conn, Context, Effect, Happening, NodeId, command};
use crate::codec::{Bytes, Parsed, Reply, scan_reply};

/// How soon it comes back; when its Sentinel starts, it is told so at once.
const AGAIN: Duration = Duration::from_millis(100);

/// A subscriber that nothing cuts off; it comes back as long as there is somebody to come back to.
pub(crate) struct Observer {
    sentinel: NodeId,
    address: SocketAddr,
    conn: Option<Conn>,
    input: Bytes,
}

impl Observer {
    pub(crate) fn new(sentinel: NodeId, address: SocketAddr) -> Self {
        Self { sentinel, address, conn: None, input: Bytes::default() }
    }

    /// Tells whom it observes.
    pub(crate) const fn about(&self) -> NodeId {
        self.sentinel
    }

    pub(crate) fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started | Happening::Woken(_) => {
                if self.conn.is_none() {
                    self.conn = Some(ctx.connect(self.address));
                }
            }
            Happening::Connected(conn) => ctx.send(conn, command(&["PSUBSCRIBE", "*"])),
            Happening::Gone { .. } => {
                self.conn = None;
                self.input.clear();
                ctx.wake_in(AGAIN, 0);
            }
            Happening::Received { bytes, .. } => {
                self.input.push(&bytes);
                while let Parsed::Whole(reply, used) = scan_reply(self.input.as_slice()) {
                    tell(&reply, ctx);
                    self.input.skip(used);
                }
            }
            Happening::Accepted { .. }
            | Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }
}

fn tell(reply: &Reply<&[u8]>, ctx: &mut Context<'_>) {
    if let Reply::Array(Some(items)) = reply
        && let [Reply::Bulk(Some(kind)), _, Reply::Bulk(Some(channel)), Reply::Bulk(Some(payload))] =
            &items[..]
        && *kind == b"pmessage"
    {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ctx.effects.push(Effect::Tell { channel: text(channel), payload: text(payload) });
    }
}
