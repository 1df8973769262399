//! Commands that the proxy answers itself.

use crate::command::{self, Local};

use crate::limits::CLIENT_NAME_BYTES_MAX;
use crate::proxy::client::Client;
use crate::proxy::request::{Flow, Request};
use crate::proxy::shared::Shared;
use crate::wire::resp::{encode, parse_integer};
use crate::wire::secret::is_same_secret;

impl Shared {
    /// Answers a command of the connection itself.
    pub(crate) fn answer(
        &mut self,
        client: &mut Client,
        local: Local,
        request: Request<'_>,
    ) -> Flow {
        if self.plan.policy.is_bad_request_fatal && !is_known_to_twemproxy(local, request) {
            return Flow::Abort;
        }
        self.note_local(client);
        match local {
            Local::Ping => self.ping(client, request),
            Local::Echo => self.reply_bulk(client, request.arg(1)),
            Local::Quit => {
                if self.plan.policy.has_quit_reply {
                    self.reply(client, b"+OK\r\n");
                }
                Flow::Finish
            }
            Local::Select => self.select(client, request),
            Local::Auth => self.auth(client, request),
            Local::Hello => self.hello(client, request),
            Local::Client => self.client(client, request),
            Local::Time => self.time(client),
            Local::Info => self.info(client),
            Local::Command => self.command(client, request),
            Local::Reset => self.reset(client),
            Local::Slowlog => self.slowlog(client, request),
            Local::Latency => self.latency(client, request),
        }
    }

    fn ping(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        if request.args.len() > 1 {
            return self.reply_bulk(client, request.arg(1));
        }
        self.reply(client, b"+PONG\r\n");
        Flow::Next
    }

    fn reply_bulk(&mut self, client: &mut Client, bytes: &[u8]) -> Flow {
        self.reply_with(client, |text| encode::bulk(text, bytes));
        Flow::Next
    }

    /// The pool has one database; asking for it is fine, asking for another is refused instead of
    /// silently answered from the wrong one.
    fn select(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let database = self.pool(client.pool).map_or(0, |(_, plan)| i64::from(plan.database));
        match parse_integer(request.arg(1)) {
            Some(wanted) if wanted == database => self.reply(client, b"+OK\r\n"),
            Some(_) => {
                let number = database.to_string();
                let parts: [&[u8]; 3] = [
                    b"ERR this pool is database ",
                    number.as_bytes(),
                    b" only; set redis_db in the pool's configuration, or use another pool",
                ];
                self.reply_error(client, &parts);
            }
            None => self.reply(client, b"-ERR value is not an integer or out of range\r\n"),
        }
        Flow::Next
    }

    fn auth(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let (user, password) = match request.args.len() {
            2 => (b"default".as_slice(), request.arg(1)),
            3 => (request.arg(1), request.arg(2)),
            _ => return self.refuse(client, &[b"ERR syntax error"]),
        };
        let result = self.authenticate(client, user, password);
        match result {
            Ok(()) => self.reply(client, b"+OK\r\n"),
            Err(message) => self.reply_error(client, &[message]),
        }
        Flow::Next
    }

    fn authenticate(
        &self,
        client: &mut Client,
        user: &[u8],
        password: &[u8],
    ) -> Result<(), &'static [u8]> {
        let is_twemproxy = self.plan.policy.is_bad_request_fatal;
        let wanted = self.pool(client.pool).and_then(|(_, plan)| plan.auth.as_deref());
        let Some(wanted) = wanted else {
            return Err(b"ERR Client sent AUTH, but no password is set");
        };
        client.is_authenticated = user == b"default" && is_same_secret(wanted, password);
        match (client.is_authenticated, is_twemproxy) {
            (true, _) => Ok(()),
            (false, true) => Err(b"ERR invalid password"),
            (false, false) => Err(b"WRONGPASS invalid username-password pair or user is disabled."),
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`. Replies are forwarded as they come,
    /// so a client of version 3 is served over connections that speak version 3.
    fn hello(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let mut is_resp3 = client.is_resp3;
        if request.args.len() > 1 {
            match parse_integer(request.arg(1)) {
                Some(version @ (2 | 3)) => is_resp3 = version == 3,
                Some(_) => {
                    self.reply(client, b"-NOPROTO unsupported protocol version\r\n");
                    return Flow::Next;
                }
                None => {
                    let message = b"ERR Protocol version is not an integer or out of range";
                    self.reply_error(client, &[message]);
                    return Flow::Next;
                }
            }
        }
        if is_resp3 != client.is_resp3 && must_wait_for_replies(client) {
            return Flow::Wait;
        }
        let mut at = 2;
        while at < request.args.len() {
            let option = request.arg(at);
            let left = request.args.len() - at;
            let result = if option.eq_ignore_ascii_case(b"AUTH") && left > 2 {
                at += 3;
                self.authenticate(client, request.arg(at - 2), request.arg(at - 1))
            } else if option.eq_ignore_ascii_case(b"SETNAME") && left > 1 {
                at += 2;
                set_name(client, request.arg(at - 1))
            } else {
                self.reply_error(client, &[b"ERR Syntax error in HELLO option '", option, b"'"]);
                return Flow::Next;
            };
            if let Err(message) = result {
                self.reply_error(client, &[message]);
                return Flow::Next;
            }
        }
        if !client.is_authenticated {
            let message = b"NOAUTH HELLO must be called with the client already authenticated, \
                otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
                authenticate the client and select the RESP protocol version at the same time";
            self.reply_error(client, &[message]);
            return Flow::Next;
        }
        client.is_resp3 = is_resp3;
        self.greet(client);
        Flow::Next
    }

    fn greet(&mut self, client: &mut Client) {
        let (number, is_resp3) = (client.number, client.is_resp3);
        self.reply_with(client, |text| {
            if is_resp3 {
                encode::map_header(text, 7);
            } else {
                encode::array_header(text, 14);
            }
            encode::bulk(text, b"server");
            encode::bulk(text, b"redis");
            encode::bulk(text, b"version");
            encode::bulk(text, REDIS_VERSION.as_bytes());
            encode::bulk(text, b"proto");
            encode::integer(text, if is_resp3 { 3 } else { 2 });
            encode::bulk(text, b"id");
            encode::integer(text, i64::try_from(number).unwrap_or(i64::MAX));
            encode::bulk(text, b"mode");
            encode::bulk(text, b"standalone");
            encode::bulk(text, b"role");
            encode::bulk(text, b"master");
            encode::bulk(text, b"modules");
            encode::array_header(text, 0);
        });
    }

    fn client(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let subcommand = request.arg(1);
        let is = |name: &[u8]| subcommand.eq_ignore_ascii_case(name);
        let count = request.args.len();
        if is(b"SETNAME") && count == 3 {
            match set_name(client, request.arg(2)) {
                Ok(()) => self.reply(client, b"+OK\r\n"),
                Err(message) => self.reply_error(client, &[message]),
            }
        } else if is(b"GETNAME") && count == 2 {
            let name = client.name.clone();
            match name {
                Some(name) => return self.reply_bulk(client, &name),
                None if client.is_resp3 => self.reply(client, b"_\r\n"),
                None => self.reply(client, b"$-1\r\n"),
            }
        } else if (is(b"SETINFO") && count == 4) || (is(b"NO-EVICT") && count == 3) {
            self.reply(client, b"+OK\r\n");
        } else if is(b"ID") && count == 2 {
            let number = i64::try_from(client.number).unwrap_or(i64::MAX);
            self.reply_with(client, |text| encode::integer(text, number));
        } else if is(b"LIST") {
            return self.client_list(client, request);
        } else if is(b"KILL") && count > 2 {
            return self.client_kill(client, request);
        } else if is(b"INFO") && count == 2 {
            let mut text = String::new();
            self.client_row(client).write(&mut text);
            return self.reply_bulk(client, text.as_bytes());
        } else {
            let shown = subcommand.get(..subcommand.len().min(64)).unwrap_or_default();
            let parts: [&[u8]; 3] = [
                b"ERR CLIENT ",
                shown,
                b" is not supported by the proxy: it would act on a connection that clients share",
            ];
            return self.refuse(client, &parts);
        }
        Flow::Next
    }

    fn time(&mut self, client: &mut Client) -> Flow {
        let micros = self.unix_micros();
        let (seconds, rest) = ((micros / 1_000_000).to_string(), (micros % 1_000_000).to_string());
        self.reply_with(client, |text| {
            encode::array_header(text, 2);
            encode::bulk(text, seconds.as_bytes());
            encode::bulk(text, rest.as_bytes());
        });
        Flow::Next
    }

    /// `COMMAND COUNT` is what this proxy serves; the rest is the same everywhere and a server
    /// tells it.
    fn command(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        if request.args.len() == 2 && request.arg(1).eq_ignore_ascii_case(b"COUNT") {
            let count = i64::try_from(command::served().count()).unwrap_or(i64::MAX);
            self.reply_with(client, |text| encode::integer(text, count));
            return Flow::Next;
        }
        self.forward_to_any(client, request)
    }

    fn reset(&mut self, client: &mut Client) -> Flow {
        if client.is_resp3 && must_wait_for_replies(client) {
            return Flow::Wait;
        }
        client.is_resp3 = false;
        client.name = None;
        client.is_authenticated =
            self.pool(client.pool).is_none_or(|(_, plan)| plan.auth.is_none());
        self.reply(client, b"+RESET\r\n");
        Flow::Next
    }
}

/// Tells whether a change of the protocol has to wait: a request that is under way on a connection
/// of the one protocol must not be overtaken by the next on a connection of the other.
fn must_wait_for_replies(client: &mut Client) -> bool {
    client.is_blocked = !client.replies.is_empty();
    client.is_blocked
}

/// The release of Redis whose commands the command table holds; clients choose features by it.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

/// The commands that twemproxy 0.5 answers by itself, with the argument counts it takes.
fn is_known_to_twemproxy(local: Local, request: Request<'_>) -> bool {
    match (local, request.args.len()) {
        (Local::Ping | Local::Quit | Local::Command, 1) | (Local::Auth, 2) => true,
        (
            Local::Ping
            | Local::Quit
            | Local::Command
            | Local::Auth
            | Local::Echo
            | Local::Select
            | Local::Hello
            | Local::Client
            | Local::Time
            | Local::Info
            | Local::Reset
            | Local::Slowlog
            | Local::Latency,
            _,
        ) => false,
    }
}

fn set_name(client: &mut Client, name: &[u8]) -> Result<(), &'static [u8]> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        return Err(b"ERR Client names longer than 64 bytes are not kept by the proxy");
    }
    if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return Err(b"ERR Client names cannot contain spaces, newlines or special characters.");
    }
    client.name = if name.is_empty() { None } else { Some(name.into()) };
    Ok(())
}
