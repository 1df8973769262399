//! Somebody who says that it is a Sentinel, and answers like one that knows nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::process::{Conn, Context, Happening, command};
use crate::codec::{Bytes, Parsed, parse_request};

/// A peer by its own word.
pub(crate) struct Stranger {
    /// To whom it introduces itself, and how.
    tells: SocketAddr,
    hello: String,
    callers: BTreeMap<Conn, Bytes>,
}

impl Stranger {
    pub(crate) const fn new(tells: SocketAddr, hello: String) -> Self {
        Self { tells, hello, callers: BTreeMap::new() }
    }

    pub(crate) fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started => {
                ctx.connect(self.tells);
            }
            Happening::Connected(conn) => {
                ctx.send(conn, command(&["PUBLISH", "__sentinel__:hello", &self.hello]));
            }
            Happening::Accepted { conn, .. } => {
                self.callers.insert(conn, Bytes::default());
            }
            Happening::Gone { conn, .. } => {
                self.callers.remove(&conn);
            }
            Happening::Received { conn, bytes } => self.received(conn, &bytes, ctx),
            Happening::Woken(_)
            | Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }

    fn received(&mut self, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        let Some(input) = self.callers.get_mut(&conn) else { return };
        input.push(bytes);
        while let Parsed::Whole(words, used) = parse_request(input.as_slice()) {
            input.skip(used);
            let reply: &[u8] = match words.first().map(Vec::as_slice) {
                Some(b"PING") => b"+PONG\r\n",
                Some(b"PUBLISH") => b":1\r\n",
                Some(b"SENTINEL") => b"*3\r\n:1\r\n$1\r\n*\r\n:0\r\n",
                _ => b"+OK\r\n",
            };
            ctx.send(conn, reply.to_vec());
        }
    }
}
