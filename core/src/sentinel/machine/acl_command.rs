//! ACL, AUTH and HELLO: who a client is, and who is who.

use std::collections::VecDeque;

use super::Sentinel;
use super::acl::{DEFAULT, Denied, Selector, User};
use super::acl_file::Wish;
use super::catalog;
use super::clients::{ClientKey, Served};
use super::ordinary::{arity_error, encode_hello, null, set_name, unknown_subcommand};
use crate::limits;
use crate::sentinel::reply::Protocol;
use crate::time::Instant;
use crate::wire::resp::{encode, parse_integer};

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
                           default user. Are you sure your configuration is correct?";
pub(super) const NO_ACL_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may \
                           want to specify users via the ACL SETUSER command and then issue a \
                           CONFIG REWRITE (assuming you have a Redis configuration file set) in \
                           order to store users in the Redis configuration.";

/// What was refused to somebody.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    count: i64,
    reason: &'static str,
    object: String,
    user: String,
    since: Instant,
    client: String,
}

/// The latest of what was refused, the latest first.
pub(super) type RefusedLog = VecDeque<Refused>;

impl Sentinel {
    /// Refuses what a client's user may not do. Returns whether it did.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        key: ClientKey,
        words: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(found) = catalog::resolve(words) else { return false };
        let Some(client) = self.clients.get(key) else { return true };
        let arguments = words.get(1..).unwrap_or_default();
        let denied = match self.users.get(&client.user) {
            Some(user) => user.denies(found, arguments),
            None => Some(Denied::Command),
        };
        let Some(denied) = denied else { return false };
        let name = found.1.name;
        let (reason, object) = match &denied {
            Denied::Command => ("command", name.to_owned()),
            Denied::Channel(channel) => ("channel", String::from_utf8_lossy(channel).into_owned()),
        };
        let user = client.user.clone();
        self.note_refused(now, key, reason, object, user);
        match denied {
            Denied::Command => encode::error(
                out,
                &format!("NOPERM this user has no permissions to run the '{name}' command"),
            ),
            Denied::Channel(_) => encode::error(
                out,
                "NOPERM this user has no permissions to access one of the channels used as \
                 arguments",
            ),
        }
        true
    }

    fn note_refused(
        &mut self,
        now: Instant,
        key: ClientKey,
        reason: &'static str,
        object: String,
        user: String,
    ) {
        let client = self.describe(now, key);
        let is_same = |known: &&mut Refused| {
            known.reason == reason && known.object == object && known.user == user
        };
        if let Some(known) = self.refused.iter_mut().find(is_same) {
            known.count += 1;
            known.since = now;
            known.client = client;
            return;
        }
        self.refused.truncate(limits::SENTINEL_REFUSED_MAX - 1);
        self.refused.push_front(Refused { count: 1, reason, object, user, since: now, client });
    }

    /// Lets a client be somebody, if the password is right.
    fn become_user(&mut self, now: Instant, key: ClientKey, user: &[u8], password: &[u8]) -> bool {
        let name = String::from_utf8_lossy(user).into_owned();
        if !self.users.is_let_in(user, password) {
            self.note_refused(now, key, "auth", "auth".to_owned(), name);
            return false;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.is_authenticated = true;
            client.user = name;
        }
        true
    }

    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        key: ClientKey,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let (user, password) = match rest {
            [password] => {
                if self.users.get(DEFAULT).is_some_and(|user| user.has_no_password) {
                    encode::error(out, NO_PASSWORD);
                    return;
                }
                (DEFAULT.as_bytes(), *password)
            }
            [user, password] => (*user, *password),
            _ => {
                encode::error(out, "ERR syntax error");
                return;
            }
        };
        if self.become_user(now, key, user, password) {
            encode::simple(out, "OK");
        } else {
            encode::error(out, WRONG_PASSWORD);
        }
    }

    pub(super) fn hello_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let protocol = match rest.first().copied() {
            None => None,
            Some(b"2") => Some(Protocol::Resp2),
            Some(b"3") => Some(Protocol::Resp3),
            Some(text) if parse_integer(text).is_some() => {
                encode::error(out, "NOPROTO unsupported protocol version");
                return;
            }
            Some(_) => {
                let text = "ERR Protocol version is not an integer or out of range";
                encode::error(out, text);
                return;
            }
        };
        let mut options = rest.get(1..).unwrap_or_default();
        let mut name = None;
        while let [option, tail @ ..] = options {
            options = match tail {
                [user, password, tail @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    if !self.become_user(now, key, user, password) {
                        encode::error(out, WRONG_PASSWORD);
                        return;
                    }
                    tail
                }
                [wanted, tail @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    name = Some(*wanted);
                    tail
                }
                _ => {
                    let text = [&b"ERR Syntax error in HELLO option '"[..], option, b"'"];
                    encode::error_parts(out, &text);
                    return;
                }
            };
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.is_authenticated {
            let text = "NOAUTH HELLO must be called with the client already authenticated, \
                        otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
                        authenticate the client and select the RESP protocol version at the same \
                        time";
            encode::error(out, text);
            return;
        }
        if name.is_some_and(|name| !set_name(client, name, out)) {
            return;
        }
        client.protocol = protocol.unwrap_or(client.protocol);
        encode_hello(client, out);
    }

    pub(super) fn acl_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        let [sub, rest @ ..] = rest else { return Served::Done };
        let word = String::from_utf8_lossy(sub).to_ascii_lowercase();
        let protocol = self.protocol(key);
        match (word.as_str(), rest) {
            ("whoami", []) => {
                let user = self.clients.get(key).map_or(DEFAULT, |client| &client.user);
                encode::bulk(out, user.as_bytes());
            }
            ("users", []) => {
                let users = self.users.iter();
                encode::array_header(out, users.len());
                users.for_each(|(name, _)| encode::bulk(out, name.as_bytes()));
            }
            ("list", []) => {
                let lines = self.users.lines();
                encode::array_header(out, lines.len());
                lines.iter().for_each(|line| encode::bulk(out, line.as_bytes()));
            }
            ("getuser", [name]) => {
                match std::str::from_utf8(name).ok().and_then(|name| self.users.get(name)) {
                    Some(user) => encode_user(user, protocol, out),
                    None => null(protocol, out),
                }
            }
            ("setuser", [name, rules @ ..]) => self.set_user(name, rules, out),
            ("deluser", names @ [_, ..]) => return self.delete_users(key, names, out),
            ("dryrun", [name, words @ ..]) if !words.is_empty() => self.dry_run(name, words, out),
            ("cat", []) => {
                encode::array_header(out, catalog::CATEGORIES.len());
                catalog::CATEGORIES.iter().for_each(|name| encode::bulk(out, name.as_bytes()));
            }
            ("cat", [category]) => match catalog::of_category(category) {
                Some(names) => {
                    encode::array_header(out, names.len());
                    names.iter().for_each(|name| encode::bulk(out, name.as_bytes()));
                }
                None => encode::error_parts(out, &[b"ERR Unknown category '", category, b"'"]),
            },
            ("genpass", [] | [_]) => self.generate_password(rest, out),
            ("log", [] | [_]) => self.tell_refused(now, rest, protocol, out),
            ("load", []) => return self.use_acl_file(key, Wish::Load, out),
            ("save", []) => return self.use_acl_file(key, Wish::Save, out),
            ("help", []) => super::help::encode(&super::help::ACL, out),
            ("cat" | "genpass" | "log", _) => {
                let shown = word.to_ascii_uppercase();
                let text = format!(
                    "ERR unknown subcommand or wrong number of arguments for '{shown}'. Try ACL \
                     HELP."
                );
                encode::error(out, &text);
            }
            (
                "whoami" | "users" | "list" | "getuser" | "setuser" | "deluser" | "dryrun" | "load"
                | "save" | "help",
                _,
            ) => arity_error(out, &format!("acl|{word}")),
            _ => unknown_subcommand(out, "ACL", sub),
        }
        Served::Done
    }

    fn set_user(&mut self, name: &[u8], rules: &[&[u8]], out: &mut Vec<u8>) {
        let is_bad = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
        let Ok(name) = std::str::from_utf8(name) else {
            return encode::error(out, "ERR Usernames have to be UTF-8");
        };
        if name.bytes().any(|byte| is_bad(&byte)) || name.len() > limits::CLIENT_NAME_BYTES_MAX {
            return encode::error(out, "ERR Usernames can't contain spaces or null characters");
        }
        match self.users.set(name, rules) {
            Ok(()) => {
                // What a client was told is in the file before a crash can undo it, if that works.
                self.store.want();
                encode::simple(out, "OK");
            }
            Err((rule, why)) => {
                let parts =
                    [&b"ERR Error in ACL SETUSER modifier '"[..], &rule, b"': ", why.as_bytes()];
                encode::error_parts(out, &parts);
            }
        }
    }

    fn delete_users(&mut self, key: ClientKey, names: &[&[u8]], out: &mut Vec<u8>) -> Served {
        if names.contains(&DEFAULT.as_bytes()) {
            encode::error(out, "ERR The 'default' user cannot be removed");
            return Served::Done;
        }
        let names: Vec<&str> = names.iter().filter_map(|n| std::str::from_utf8(n).ok()).collect();
        let gone: Vec<&str> = names.into_iter().filter(|name| self.users.remove(name)).collect();
        encode::integer(out, i64::try_from(gone.len()).unwrap_or(i64::MAX));
        self.store.want();
        let of_gone = self.clients.iter().filter(|(_, client)| gone.contains(&&*client.user));
        let doomed: Vec<ClientKey> = of_gone.map(|(key, _)| key).collect();
        let mut is_own = false;
        for other in doomed {
            if other == key { is_own = true } else { self.clients.abort(other) }
        }
        if is_own { Served::Close } else { Served::Done }
    }

    fn dry_run(&self, name: &[u8], words: &[&[u8]], out: &mut Vec<u8>) {
        let Some(user) = std::str::from_utf8(name).ok().and_then(|name| self.users.get(name))
        else {
            return encode::error_parts(out, &[b"ERR User '", name, b"' not found"]);
        };
        let command = words.first().copied().unwrap_or_default();
        let Some(found) = catalog::resolve(words) else {
            return encode::error_parts(out, &[b"ERR Command '", command, b"' not found"]);
        };
        let count = i64::try_from(words.len()).unwrap_or(i64::MAX);
        let arity = found.1.arity;
        if (arity > 0 && count != arity) || count < arity.abs() {
            return arity_error(out, found.1.name);
        }
        match user.denies(found, words.get(1..).unwrap_or_default()) {
            None => encode::simple(out, "OK"),
            Some(Denied::Command) => {
                let name = found.1.name;
                let text = format!("This user has no permissions to run the '{name}' command");
                encode::bulk(out, text.as_bytes());
            }
            Some(Denied::Channel(channel)) => {
                let channel = String::from_utf8_lossy(&channel).into_owned();
                let text =
                    format!("This user has no permissions to access the '{channel}' channel");
                encode::bulk(out, text.as_bytes());
            }
        }
    }

    fn generate_password(&mut self, rest: &[&[u8]], out: &mut Vec<u8>) {
        let bits = match rest.first() {
            None => 256,
            Some(text) => match parse_integer(text) {
                Some(bits @ 1..=4096) => bits,
                Some(_) => {
                    return encode::error(
                        out,
                        "ERR ACL GENPASS argument must be the number of bits for the output \
                         password, a positive number up to 4096",
                    );
                }
                None => {
                    return encode::error(out, "ERR value is not an integer or out of range");
                }
            },
        };
        let digits = usize::try_from((bits + 3) / 4).unwrap_or(0);
        let drawn = (0..digits.div_ceil(16)).map(|_| format!("{:016x}", self.rng.next_u64()));
        let text: String = drawn.collect();
        encode::bulk(out, text.get(..digits).unwrap_or_default().as_bytes());
    }

    fn tell_refused(
        &mut self,
        now: Instant,
        rest: &[&[u8]],
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let most = match rest.first() {
            None => 10,
            Some(word) if word.eq_ignore_ascii_case(b"reset") => {
                self.refused.clear();
                return encode::simple(out, "OK");
            }
            Some(text) => match parse_integer(text) {
                Some(count) => usize::try_from(count).unwrap_or(0),
                None => return encode::error(out, "ERR value is not an integer or out of range"),
            },
        };
        let told = most.min(self.refused.len());
        encode::array_header(out, told);
        for refused in self.refused.iter().take(told) {
            map_header(protocol, 7, out);
            let mut pair = |name: &str, value: &str| {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_bytes());
            };
            pair("reason", refused.reason);
            pair("context", "toplevel");
            pair("object", &refused.object);
            pair("username", &refused.user);
            pair("client-info", &refused.client);
            encode::bulk(out, b"count");
            encode::integer(out, refused.count);
            encode::bulk(out, b"age-seconds");
            let age = format!("{:.3}", now.since(refused.since).as_secs_f64());
            match protocol {
                Protocol::Resp2 => encode::bulk(out, age.as_bytes()),
                Protocol::Resp3 => out.extend_from_slice(format!(",{age}\r\n").as_bytes()),
            }
        }
    }
}

fn map_header(protocol: Protocol, pairs: usize, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Resp2 => encode::array_header(out, pairs * 2),
        Protocol::Resp3 => encode::map_header(out, pairs),
    }
}

fn encode_user(user: &User, protocol: Protocol, out: &mut Vec<u8>) {
    map_header(protocol, 6, out);
    encode::bulk(out, b"flags");
    let flags = user.flags();
    catalog::set_header(protocol, flags.len(), out);
    flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
    encode::bulk(out, b"passwords");
    encode::array_header(out, user.passwords().len());
    user.passwords().iter().for_each(|hash| encode::bulk(out, hash.as_bytes()));
    encode_selector(user.root(), out);
    encode::bulk(out, b"selectors");
    encode::array_header(out, user.others().len());
    for other in user.others() {
        map_header(protocol, 3, out);
        encode_selector(other, out);
    }
}

fn encode_selector(selector: &Selector, out: &mut Vec<u8>) {
    let fields = [
        ("commands", selector.commands.describe()),
        ("keys", selector.keys()),
        ("channels", selector.channels()),
    ];
    for (name, value) in fields {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
}
