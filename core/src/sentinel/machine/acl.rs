//! Users: who they are, what they may do, and the rules that say so.
//!
//! Source: what the Sentinel of Redis 7.0 does with the same rules. A Sentinel has no keys;
//! patterns for them are kept and told, and forbid nothing.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::catalog::{CommandId, CommandSet, Entry};
use super::pubsub::is_match;
use crate::config::sentinel::{Server, User as Declared};
use crate::limits;

/// Everybody's name who does not say another.
pub(super) const DEFAULT: &str = "default";

/// Why a rule is refused, in Redis' words.
pub(super) type Refusal = &'static str;

const SYNTAX: Refusal = "Syntax error";
pub(super) const UNKNOWN_COMMAND: Refusal = "Unknown command or category name in ACL";
const NO_SUCH_PASSWORD: Refusal =
    "The password you are trying to remove from the user does not exist";
const BAD_HASH: Refusal = "The password hash must be exactly 64 characters and contain only \
                           lowercase hexadecimal characters";
const AFTER_ALL_KEYS: Refusal = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
     any effect. Try 'resetkeys' to start with an empty list of patterns";
const AFTER_ALL_CHANNELS: Refusal = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not \
     have any effect. Try 'resetchannels' to start with an empty list of channels";
const TOO_MANY: Refusal = "Too many rules";

/// What may be done together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) commands: CommandSet,
    has_all_keys: bool,
    keys: Vec<String>,
    has_all_channels: bool,
    channels: Vec<String>,
}

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    is_on: bool,
    pub(super) has_no_password: bool,
    /// Said only because it was set; a Sentinel has no payloads.
    sanitizes: Option<bool>,
    /// SHA-256 in hexadecimal digits.
    passwords: Vec<String>,
    root: Selector,
    others: Vec<Selector>,
}

/// What a request is refused for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Command,
    Channel(Vec<u8>),
}

/// All users.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    users: BTreeMap<String, User>,
    /// Whether a client has changed them, so that the file has to say so.
    pub(super) is_changed: bool,
}

impl Users {
    /// Takes the users of a file.
    ///
    /// # Errors
    ///
    /// The user, and what is wrong with it.
    pub(super) fn from_file(server: &Server) -> Result<Self, (String, String)> {
        let mut user = User::everybody();
        if let Some(secret) = &server.requirepass {
            user.set_password(&hash(secret.expose().as_bytes()));
        }
        let users = BTreeMap::from([(DEFAULT.to_owned(), user)]);
        let mut users = Self { users, is_changed: false };
        for Declared { name, rules } in &server.users {
            // As Redis does: the one that is there already begins anew.
            let sanitizes = (name == DEFAULT).then_some(true);
            let mut user = User { sanitizes, ..User::default() };
            let words: Vec<&[u8]> = rules.iter().map(String::as_bytes).collect();
            user.apply_all(&words).map_err(|(rule, why)| {
                let rule = String::from_utf8_lossy(&rule).into_owned();
                (name.clone(), format!("Error in applying operation '{rule}': {why}"))
            })?;
            users.users.insert(name.clone(), user);
        }
        Ok(users)
    }

    pub(super) fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &User)> {
        self.users.iter()
    }

    /// Whether clients who say nothing are let in.
    pub(super) fn lets_everybody_in(&self) -> bool {
        self.get(DEFAULT).is_some_and(|user| user.is_on && user.has_no_password)
    }

    /// Changes a user, or makes one; all rules count or none.
    ///
    /// # Errors
    ///
    /// The rule that is refused, and why.
    pub(super) fn set(&mut self, name: &str, rules: &[&[u8]]) -> Result<(), (Vec<u8>, Refusal)> {
        let is_full = self.users.len() >= limits::SENTINEL_USERS_MAX;
        if is_full && !self.users.contains_key(name) {
            return Err((name.as_bytes().to_vec(), "Too many users"));
        }
        let mut user = self.users.get(name).cloned().unwrap_or_default();
        user.apply_all(rules)?;
        self.users.insert(name.to_owned(), user);
        self.is_changed = true;
        Ok(())
    }

    /// Adds a user, or replaces one.
    pub(super) fn put(&mut self, name: &str, user: User) {
        self.users.insert(name.to_owned(), user);
    }

    /// Removes a user. Returns whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let is_gone = self.users.remove(name).is_some();
        self.is_changed |= is_gone;
        is_gone
    }

    /// Whether this user is let in with this password.
    pub(super) fn is_let_in(&self, name: &[u8], password: &[u8]) -> bool {
        let user = std::str::from_utf8(name).ok().and_then(|name| self.get(name));
        let Some(user) = user.filter(|user| user.is_on) else { return false };
        let given = hash(password);
        // Digests tell nothing by the time that it takes to compare them.
        user.has_no_password || user.passwords.contains(&given)
    }

    /// Returns the lines of a file.
    pub(super) fn lines(&self) -> Vec<String> {
        self.users.iter().map(|(name, user)| format!("user {name} {user}")).collect()
    }
}

fn hash(password: &[u8]) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl User {
    /// Returns a user who may do everything without a password.
    pub(super) fn everybody() -> Self {
        let root = Selector {
            commands: CommandSet::ALL,
            has_all_keys: true,
            has_all_channels: true,
            ..Selector::default()
        };
        Self { is_on: true, has_no_password: true, root, ..Self::default() }
    }

    /// Applies rules, each selector in parentheses being one.
    pub(super) fn apply_all(&mut self, rules: &[&[u8]]) -> Result<(), (Vec<u8>, Refusal)> {
        let mut rest = rules.iter();
        while let Some(rule) = rest.next() {
            let mut whole = rule.to_vec();
            while whole.starts_with(b"(") && !whole.ends_with(b")") {
                let Some(more) = rest.next() else { return Err((whole, SYNTAX)) };
                whole.push(b' ');
                whole.extend_from_slice(more);
            }
            let text = std::str::from_utf8(&whole).map_err(|_| (whole.clone(), SYNTAX))?;
            self.apply(text).map_err(|why| (whole.clone(), why))?;
        }
        Ok(())
    }

    fn set_password(&mut self, hash: &str) {
        self.has_no_password = false;
        if !self.passwords.iter().any(|known| known == hash) {
            self.passwords.push(hash.to_owned());
        }
    }

    fn apply(&mut self, rule: &str) -> Result<(), Refusal> {
        if self.passwords.len() + self.others.len() > limits::SENTINEL_USER_RULES_MAX {
            return Err(TOO_MANY);
        }
        match rule.to_ascii_lowercase().as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "nopass" => {
                self.has_no_password = true;
                self.passwords.clear();
            }
            "resetpass" => {
                self.has_no_password = false;
                self.passwords.clear();
            }
            "sanitize-payload" => self.sanitizes = Some(true),
            "skip-sanitize-payload" => self.sanitizes = Some(false),
            "clearselectors" => self.others.clear(),
            "reset" => *self = Self { sanitizes: Some(true), ..Self::default() },
            _ => return self.apply_more(rule),
        }
        Ok(())
    }

    fn apply_more(&mut self, rule: &str) -> Result<(), Refusal> {
        let known = |this: &Self, hash: &str| this.passwords.iter().position(|one| one == hash);
        match rule.split_at_checked(1) {
            Some((">", password)) => self.set_password(&hash(password.as_bytes())),
            Some(("#", digits)) => self.set_password(checked_hash(digits)?),
            Some((sign @ ("<" | "!"), word)) => {
                let hash = if sign == "<" {
                    hash(word.as_bytes())
                } else {
                    checked_hash(word)?.to_owned()
                };
                let at = known(self, &hash).ok_or(NO_SUCH_PASSWORD)?;
                self.passwords.remove(at);
            }
            Some(("(", rest)) => {
                let inner = rest.strip_suffix(')').ok_or(SYNTAX)?;
                let mut selector = Selector::default();
                for rule in inner.split_whitespace() {
                    selector.apply(rule)?;
                }
                self.others.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.others)
    }

    /// Returns why a request is refused; none if it is not.
    pub(super) fn denies(
        &self,
        (id, entry): (CommandId, &Entry),
        arguments: &[&[u8]],
    ) -> Option<Denied> {
        // Whoever wants to become somebody else may ask.
        if entry.has_flag("no_auth") {
            return None;
        }
        let mut denied = Denied::Command;
        for selector in self.selectors().filter(|selector| selector.commands.contains(id)) {
            match selector.refused_channel(entry.name, arguments) {
                None => return None,
                Some(channel) => denied = Denied::Channel(channel.to_vec()),
            }
        }
        Some(denied)
    }

    /// Returns the words before the passwords.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        if self.has_no_password {
            flags.push("nopass");
        }
        match self.sanitizes {
            Some(true) => flags.push("sanitize-payload"),
            Some(false) => flags.push("skip-sanitize-payload"),
            None => {}
        }
        flags
    }

    pub(super) fn passwords(&self) -> &[String] {
        &self.passwords
    }

    pub(super) const fn root(&self) -> &Selector {
        &self.root
    }

    pub(super) fn others(&self) -> &[Selector] {
        &self.others
    }
}

fn checked_hash(digits: &str) -> Result<&str, Refusal> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_good = digits.len() == 64 && digits.bytes().all(is_digit);
    is_good.then_some(digits).ok_or(BAD_HASH)
}

impl Selector {
    fn apply(&mut self, rule: &str) -> Result<(), Refusal> {
        match rule.to_ascii_lowercase().as_str() {
            "allkeys" | "~*" => {
                self.has_all_keys = true;
                self.keys.clear();
            }
            "resetkeys" => {
                self.has_all_keys = false;
                self.keys.clear();
            }
            "allchannels" | "&*" => {
                self.has_all_channels = true;
                self.channels.clear();
            }
            "resetchannels" => {
                self.has_all_channels = false;
                self.channels.clear();
            }
            "allcommands" | "+@all" => self.commands = CommandSet::ALL,
            "nocommands" | "-@all" => self.commands = CommandSet::default(),
            _ => return self.apply_more(rule),
        }
        Ok(())
    }

    fn apply_more(&mut self, rule: &str) -> Result<(), Refusal> {
        let Some((sign, word)) = rule.split_at_checked(1) else { return Err(SYNTAX) };
        let is_full = self.keys.len() + self.channels.len() > limits::SENTINEL_USER_RULES_MAX;
        match sign {
            "~" | "%" => {
                let pattern = key_pattern(rule).ok_or(SYNTAX)?;
                if self.has_all_keys {
                    return Err(AFTER_ALL_KEYS);
                }
                if is_full {
                    return Err(TOO_MANY);
                }
                if !self.keys.contains(&pattern) {
                    self.keys.push(pattern);
                }
            }
            "&" => {
                if self.has_all_channels {
                    return Err(AFTER_ALL_CHANNELS);
                }
                if is_full {
                    return Err(TOO_MANY);
                }
                if !self.channels.iter().any(|known| known == word) {
                    self.channels.push(word.to_owned());
                }
            }
            "+" | "-" => {
                let name = word.to_ascii_lowercase();
                let is_known = match name.strip_prefix('@') {
                    Some(category) => self.commands.put_category(category, sign == "+"),
                    None => self.commands.put_command(&name, sign == "+"),
                };
                return is_known.then_some(()).ok_or(UNKNOWN_COMMAND);
            }
            _ => return Err(SYNTAX),
        }
        Ok(())
    }

    /// Returns a channel among the arguments that may not be used.
    fn refused_channel<'a>(&self, command: &str, arguments: &[&'a [u8]]) -> Option<&'a [u8]> {
        if self.has_all_channels {
            return None;
        }
        let (channels, is_pattern) = match command {
            "subscribe" => (arguments, false),
            "psubscribe" => (arguments, true),
            "publish" => (arguments.get(..1).unwrap_or_default(), false),
            _ => return None,
        };
        let allows = |channel: &[u8]| {
            self.channels.iter().any(|known| match is_pattern {
                true => known.as_bytes() == channel,
                false => is_match(known.as_bytes(), channel),
            })
        };
        channels.iter().copied().find(|channel| !allows(channel))
    }

    pub(super) fn keys(&self) -> String {
        if self.has_all_keys { "~*".to_owned() } else { self.keys.join(" ") }
    }

    pub(super) fn channels(&self) -> String {
        if self.has_all_channels {
            return "&*".to_owned();
        }
        let channels: Vec<String> = self.channels.iter().map(|name| format!("&{name}")).collect();
        channels.join(" ")
    }
}

/// Returns a pattern for keys as it is told: what may be done with them before it, unless that is
/// everything.
fn key_pattern(rule: &str) -> Option<String> {
    let Some(rest) = rule.strip_prefix('%') else { return Some(rule.to_owned()) };
    let (rights, pattern) = rest.split_once('~')?;
    let rights = rights.to_ascii_uppercase();
    match rights.as_str() {
        "RW" | "WR" => Some(format!("~{pattern}")),
        "R" | "W" => Some(format!("%{rights}~{pattern}")),
        _ => None,
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys();
        if !keys.is_empty() {
            write!(f, "{keys} ")?;
        }
        if !self.has_all_channels {
            f.write_str("resetchannels ")?;
        }
        let channels = self.channels();
        if !channels.is_empty() {
            write!(f, "{channels} ")?;
        }
        f.write_str(&self.commands.describe())
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.flags().join(" "))?;
        for password in &self.passwords {
            write!(f, "#{password} ")?;
        }
        write!(f, "{}", self.root)?;
        for other in &self.others {
            write!(f, " ({other})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog;
    use super::*;

    fn made(rules: &str) -> Result<User, (Vec<u8>, Refusal)> {
        let mut user = User::default();
        let words: Vec<&[u8]> = rules.split_whitespace().map(str::as_bytes).collect();
        user.apply_all(&words).map(|()| user)
    }

    /// Recorded from Redis 7.0.15.
    #[test]
    fn users_are_told_as_redis_tells_them() {
        let secret = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        for (rules, told) in [
            ("", "off resetchannels -@all".to_owned()),
            ("on >secret", format!("on #{secret} resetchannels -@all")),
            ("reset", "off sanitize-payload resetchannels -@all".to_owned()),
            (
                "on nopass ~foo resetchannels &chan &news* +@all -@dangerous (+ping ~x)",
                "on nopass ~foo resetchannels &chan &news* +@all -@dangerous (~x resetchannels \
                 -@all +ping)"
                    .to_owned(),
            ),
            ("%RW~a %W~b", "off ~a %W~b resetchannels -@all".to_owned()),
            ("allcommands allkeys allchannels", "off ~* &* +@all".to_owned()),
            ("+@pubsub -@fast", "off resetchannels -@all +@pubsub -publish".to_owned()),
        ] {
            let user = made(rules).unwrap();
            assert_eq!(user.to_string(), told, "{rules}");
            assert_eq!(made(&user.to_string()).unwrap().to_string(), told);
        }
    }

    #[test]
    fn bad_rules_are_refused_with_redis_words() {
        for (rules, why) in [
            ("+get", UNKNOWN_COMMAND),
            ("+@nosuch", UNKNOWN_COMMAND),
            ("+sentinel|nosuch", UNKNOWN_COMMAND),
            ("foo", SYNTAX),
            ("%X~c", SYNTAX),
            ("(+ping", SYNTAX),
            ("<wrong", NO_SUCH_PASSWORD),
            ("#zz", BAD_HASH),
            ("!abc", BAD_HASH),
            ("allkeys ~foo", AFTER_ALL_KEYS),
            ("allchannels &chan", AFTER_ALL_CHANNELS),
        ] {
            assert_eq!(made(rules).unwrap_err().1, why, "{rules}");
        }
    }

    #[test]
    fn only_what_is_allowed_may_be_done() {
        let bob =
            made("on nopass +ping +acl|whoami +subscribe +psubscribe &+sdown (+info)").unwrap();
        let denied = |words: &[&str]| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            bob.denies(catalog::resolve(&words).unwrap(), &words[1..])
        };
        for words in [&["PING"][..], &["acl", "WHOAMI"], &["subscribe", "+sdown"], &["info"]] {
            assert_eq!(denied(words), None, "{words:?}");
        }
        assert_eq!(denied(&["auth", "x", "y"]), None);
        for words in
            [&["sentinel", "masters"][..], &["acl", "list"], &["acl"], &["publish", "a", "b"]]
        {
            assert_eq!(denied(words), Some(Denied::Command), "{words:?}");
        }
        assert_eq!(denied(&["psubscribe", "+s*"]), Some(Denied::Channel(b"+s*".to_vec())));
        assert_eq!(denied(&["subscribe", "+sdown", "x"]), Some(Denied::Channel(b"x".to_vec())));
    }
}
