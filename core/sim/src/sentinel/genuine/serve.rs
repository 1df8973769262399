//! What it answers to peers and operators.

use super::super::process::{Conn, Context, address};
use super::super::server::word;
use super::Genuine;
use super::table::{Id, Kind};
use crate::codec::{Bytes, Parsed, Reply, encode_reply, scan_request};

/// Somebody who connected to us.
#[derive(Debug, Default)]
pub(super) struct Caller {
    input: Bytes,
}

impl Genuine {
    pub(super) fn serve(&mut self, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        let Some(caller) = self.callers.get_mut(&conn) else { return };
        caller.input.push(bytes);
        let mut input = std::mem::take(&mut caller.input);
        let mut out = Vec::new();
        while let Parsed::Whole(words, used) = scan_request(input.as_slice()) {
            let reply = self.answer(&words, ctx);
            encode_reply(&reply, &mut out);
            input.skip(used);
        }
        if let Some(caller) = self.callers.get_mut(&conn) {
            caller.input = input;
        }
        if !out.is_empty() {
            ctx.send(conn, out);
        }
    }

    fn answer(&mut self, words: &[&[u8]], ctx: &mut Context<'_>) -> Reply {
        let ok = || Reply::Status(b"OK".to_vec());
        match word(words, 0).to_ascii_uppercase().as_str() {
            "PING" => Reply::Status(b"PONG".to_vec()),
            "CLIENT" | "AUTH" => ok(),
            "PUBLISH" => {
                self.hello(&word(words, 2), ctx);
                Reply::Integer(1)
            }
            "SENTINEL" => match word(words, 1).to_ascii_lowercase().as_str() {
                "is-master-down-by-addr" => self.asked(words, ctx),
                "failover" => self.ordered(&word(words, 2), ctx),
                "reset" => self.reset_all(ctx),
                "myid" => Reply::Bulk(Some(self.my_id.clone().into_bytes())),
                _ => Reply::Error(b"ERR unknown subcommand".to_vec()),
            },
            _ => Reply::Error(b"ERR unknown command".to_vec()),
        }
    }

    /// A peer asks whether a master is down, and perhaps for our vote.
    fn asked(&mut self, words: &[&[u8]], ctx: &mut Context<'_>) -> Reply {
        let address = address(&word(words, 2), &word(words, 3));
        let epoch = word(words, 4).parse().unwrap_or(0);
        let run_id = word(words, 5);
        let known = self.masters.iter().copied();
        let known = known.into_iter().find(|id| Some(self.instances[*id].address) == address);
        let is_down = known.is_some_and(|id| {
            let one = &self.instances[id];
            !self.is_tilted && one.s_down && one.kind == Kind::Master
        });
        let vote = match known {
            Some(id) if run_id != "*" => self.vote(id, epoch, &run_id, ctx),
            _ => (None, 0),
        };
        Reply::Array(Some(vec![
            Reply::Integer(i64::from(is_down)),
            Reply::Bulk(Some(vote.0.unwrap_or_else(|| "*".to_owned()).into_bytes())),
            Reply::Integer(vote.1 as i64),
        ]))
    }

    /// An operator orders a fail-over.
    fn ordered(&mut self, name: &str, ctx: &mut Context<'_>) -> Reply {
        let Some(id) = self.master_by_name(name) else {
            return Reply::Error(b"ERR No such master with that name".to_vec());
        };
        if self.instances[id].in_failover {
            return Reply::Error(b"INPROG Failover already in progress".to_vec());
        }
        if self.best_replica(id, ctx.wall_ms).is_none() {
            return Reply::Error(b"NOGOODSLAVE No suitable replica to promote".to_vec());
        }
        self.start_failover(id, ctx);
        self.instances[id].is_forced = true;
        Reply::Status(b"OK".to_vec())
    }

    fn reset_all(&mut self, ctx: &mut Context<'_>) -> Reply {
        let masters: Vec<Id> = self.masters.clone();
        for id in &masters {
            self.reset_master(*id, true, ctx);
            self.event(*id, "+reset-master", "", ctx);
        }
        Reply::Integer(masters.len() as i64)
    }
}
