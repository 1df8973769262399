//! Questions to a Redis server, or to Sentinels about it: the conversation of `REDIS_CHECK`.

use std::net::{IpAddr, SocketAddr};

use super::Progress;
use crate::config::keepalived::{RedisCheck, RedisRole};
use crate::limits;
use crate::wire::resp::{ReplyScan, ReplyScanner, array_elements, encode, is_error};

/// The conversations of one checker.
#[derive(Debug)]
pub struct Questions {
    asked: RedisCheck,
    server: SocketAddr,
    /// Which Sentinel is asked.
    at: usize,
    /// Whether the reply to AUTH is still to come.
    is_greeting: bool,
    /// Whether a Sentinel has answered.
    has_verdict: bool,
    kept: Vec<u8>,
}

impl Questions {
    /// Makes one about a server.
    pub const fn new(asked: RedisCheck, server: SocketAddr) -> Self {
        let kept = Vec::new();
        Self { asked, server, at: 0, is_greeting: false, has_verdict: false, kept }
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        self.at = 0;
        self.has_verdict = false;
        self.clear();
    }

    fn clear(&mut self) {
        self.is_greeting = self.asked.password.is_some();
        self.kept.clear();
    }

    /// Tells whether Sentinels are asked and not the server.
    pub const fn is_about_sentinels(&self) -> bool {
        !self.asked.sentinels.is_empty()
    }

    /// Tells whether a Sentinel has said where the master is.
    pub const fn has_verdict(&self) -> bool {
        self.has_verdict
    }

    /// Goes on with the next Sentinel; false if there is none or none is needed.
    pub fn next_sentinel(&mut self) -> bool {
        if self.has_verdict || self.at + 1 >= self.asked.sentinels.len() {
            return false;
        }
        self.at += 1;
        self.clear();
        true
    }

    /// Returns whom the question is for.
    pub fn target(&self) -> SocketAddr {
        self.asked.sentinels.get(self.at).copied().unwrap_or(self.server)
    }

    /// Returns what is asked.
    pub fn request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match (&self.asked.user, &self.asked.password) {
            (Some(user), Some(password)) => {
                encode::request(&mut out, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
            }
            (None, Some(password)) => {
                encode::request(&mut out, &[b"AUTH", password.as_bytes()]);
            }
            (_, None) => {}
        }
        if self.is_about_sentinels() {
            let name = self.asked.master.as_bytes();
            encode::request(&mut out, &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]);
        } else {
            match self.asked.role {
                RedisRole::Any => encode::request(&mut out, &[b"PING"]),
                RedisRole::Master | RedisRole::Replica => encode::request(&mut out, &[b"ROLE"]),
            }
        }
        out
    }

    /// Takes a part of the replies.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        if self.kept.len() + bytes.len() > limits::CHECK_REPLY_BYTES_MAX {
            return Progress::Over(Err("the reply is too long".to_owned()));
        }
        self.kept.extend_from_slice(bytes);
        loop {
            let len = match ReplyScanner::default().advance(&self.kept) {
                Ok(ReplyScan::Complete { len }) => len,
                Ok(ReplyScan::Incomplete) => return Progress::More,
                Err(_) => return Progress::Over(Err("it does not speak Redis".to_owned())),
            };
            let rest = self.kept.split_off(len.min(self.kept.len()));
            let reply = std::mem::replace(&mut self.kept, rest);
            if !self.is_greeting {
                return Progress::Over(self.judge(&reply));
            }
            if is_error(&reply) {
                return Progress::Over(Err(format!("it refuses the password: {}", shown(&reply))));
            }
            self.is_greeting = false;
        }
    }

    fn judge(&mut self, reply: &[u8]) -> Result<String, String> {
        if is_error(reply) {
            return Err(shown(reply));
        }
        if self.is_about_sentinels() {
            return self.judge_sentinel(reply);
        }
        match self.asked.role {
            RedisRole::Any => match reply {
                b"+PONG\r\n" | b"$4\r\nPONG\r\n" => Ok("it answers PING".to_owned()),
                other => Err(format!("it answers PING with {}", shown(other))),
            },
            RedisRole::Master => match role(reply) {
                Some((b"master", _)) => Ok("it is a master".to_owned()),
                _ => Err("it is no master".to_owned()),
            },
            RedisRole::Replica => match role(reply) {
                Some((b"slave", Some(b"connected"))) => Ok("it is a replica".to_owned()),
                Some((b"slave", _)) => Err("it is a replica without its master".to_owned()),
                _ => Err("it is no replica".to_owned()),
            },
        }
    }

    fn judge_sentinel(&mut self, reply: &[u8]) -> Result<String, String> {
        let sentinel = self.target();
        let mut parts = array_elements(reply).into_iter().flatten().filter_map(bulk);
        let address = parts.next().and_then(|host| {
            let ip: IpAddr = std::str::from_utf8(host).ok()?.parse().ok()?;
            let port = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            Some(SocketAddr::new(ip, port))
        });
        // Without an address it does not know this master: another may.
        let Some(address) = address else {
            return Err(format!("Sentinel {sentinel} does not know {}", self.asked.master));
        };
        self.has_verdict = true;
        if address == self.server {
            Ok(format!("Sentinel {sentinel} says that it is the master"))
        } else {
            Err(format!("Sentinel {sentinel} says that {address} is the master"))
        }
    }
}

/// Returns the role in a reply to ROLE, and of a replica the state of its link.
fn role(reply: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut parts = array_elements(reply)?;
    let name = bulk(parts.next()?)?;
    Some((name, parts.nth(2).and_then(bulk)))
}

/// Returns the content of a whole bulk reply.
fn bulk(frame: &[u8]) -> Option<&[u8]> {
    let frame = frame.strip_prefix(b"$")?;
    let end = frame.windows(2).position(|two| two == b"\r\n")?;
    frame.get(end + 2..)?.strip_suffix(b"\r\n")
}

/// Returns the first line of a reply for people.
fn shown(reply: &[u8]) -> String {
    let line = reply.split(|&byte| byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line.get(..line.len().min(100)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(role: RedisRole) -> Questions {
        let asked = RedisCheck { role, ..RedisCheck::default() };
        let mut questions = Questions::new(asked, "10.0.0.1:6379".parse().unwrap());
        questions.restart();
        questions
    }

    fn verdict(questions: &mut Questions, reply: &[u8]) -> Option<bool> {
        for byte in reply {
            match questions.take(&[*byte]) {
                Progress::More => {}
                Progress::Over(result) => return Some(result.is_ok()),
                other @ (Progress::Ask(_) | Progress::Anew) => panic!("{other:?}"),
            }
        }
        None
    }

    #[test]
    fn roles_are_told_apart() {
        let (master, replica) = (RedisRole::Master, RedisRole::Replica);
        let link = |state: &str| {
            let len = state.len();
            format!("*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.2\r\n:6379\r\n${len}\r\n{state}\r\n:0\r\n")
        };
        let is_master = "*3\r\n$6\r\nmaster\r\n:5\r\n*0\r\n".to_owned();
        for (role, reply, expected) in [
            (RedisRole::Any, "+PONG\r\n".to_owned(), true),
            (RedisRole::Any, "-LOADING Redis is loading\r\n".to_owned(), false),
            (RedisRole::Any, "HTTP/1.0 200 OK\r\n".to_owned(), false),
            (master, is_master.clone(), true),
            (master, link("connected"), false),
            (replica, link("connected"), true),
            (replica, link("connect"), false),
            (replica, is_master, false),
        ] {
            let found = verdict(&mut asked(role), reply.as_bytes());
            assert_eq!(found, Some(expected), "{role:?} {reply}");
        }
    }

    #[test]
    fn a_password_comes_first_and_its_refusal_is_told() {
        let check = RedisCheck { password: Some("x".to_owned()), ..RedisCheck::default() };
        let mut questions = Questions::new(check, "10.0.0.1:6379".parse().unwrap());
        questions.restart();
        assert_eq!(questions.request(), b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*1\r\n$4\r\nPING\r\n");
        assert_eq!(verdict(&mut questions, b"+OK\r\n+PONG\r\n"), Some(true));
        questions.restart();
        assert_eq!(verdict(&mut questions, b"-WRONGPASS no\r\n-NOAUTH no\r\n"), Some(false));
    }

    #[test]
    fn a_sentinel_says_whether_the_server_is_the_master() {
        let sentinels = vec!["10.0.0.8:26379".parse().unwrap(), "10.0.0.9:26379".parse().unwrap()];
        let master = "mymaster".to_owned();
        let check = RedisCheck { sentinels, master, ..RedisCheck::default() };
        let mut questions = Questions::new(check, "10.0.0.1:6379".parse().unwrap());
        questions.restart();
        assert_eq!(questions.target(), "10.0.0.8:26379".parse().unwrap());
        let is_it = b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n";
        assert_eq!(verdict(&mut questions, is_it), Some(true));
        questions.restart();
        let other = b"*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n";
        assert_eq!(verdict(&mut questions, other), Some(false));
        assert!(!questions.next_sentinel(), "one that knows is enough");
        questions.restart();
        assert_eq!(verdict(&mut questions, b"*-1\r\n"), Some(false));
        assert!(!questions.has_verdict() && questions.next_sentinel());
        assert_eq!(questions.target(), "10.0.0.9:26379".parse().unwrap());
        assert!(!questions.next_sentinel());
    }
}
