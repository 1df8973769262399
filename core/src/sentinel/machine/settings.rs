//! Operators change settings: MONITOR, SET, CONFIG, DEBUG.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::clients::{ClientKey, Served};
use super::links::Node;
use super::pubsub::is_match;
use super::say::Said;
use super::store::Waiter;
use super::{MasterId, Sentinel};
use crate::config::sentinel::{self as config, Monitor, RenamedCommand, Secret};
use crate::limits;
use crate::sentinel::event::Event;
use crate::sentinel::instance::{Address, AddressError, MasterName};
use crate::sentinel::reply::{NO_SUCH_MASTER, Protocol};
use crate::sentinel::tilt::Tilt;
use crate::time::Instant;
use crate::wire::resp::{encode, parse_integer};

const SCRIPTS_DENIED: &str = "ERR Reconfiguration of scripts path is denied for security reasons. \
                              Check the deny-scripts-reconfig configuration directive in your \
                              Sentinel configuration";
const CONFIG_USAGE: &str =
    "ERR Only SENTINEL CONFIG GET <option> / SET <option> <value> are supported.";

/// What a value of SET was.
enum Outcome {
    /// Taken; what events tell of the value.
    Set(Vec<String>),
    /// Taken, and connections have to be made anew.
    Credentials(Vec<String>),
    /// Refused, with the error.
    Refused(String),
}

fn positive_ms(value: &str) -> Option<u64> {
    let ms = parse_integer(value.as_bytes()).and_then(|ms| u64::try_from(ms).ok())?;
    (1..=limits::SENTINEL_TIME_MS_MAX).contains(&ms).then_some(ms)
}

fn positive(value: &str) -> Option<NonZeroU32> {
    let count = parse_integer(value.as_bytes()).and_then(|count| i32::try_from(count).ok())?;
    u32::try_from(count).ok().and_then(NonZeroU32::new)
}

fn yes_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

impl Sentinel {
    pub(super) fn monitor_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        args: [&[u8]; 4],
        out: &mut Vec<u8>,
    ) -> Served {
        match self.check_monitor(args) {
            Ok(settings) => self.monitor(now, settings),
            Err(text) => {
                encode::error(out, text);
                return Served::Done;
            }
        }
        self.store.want_for(Waiter::Client(key));
        Served::Waits
    }

    /// The order of the checks is that of genuine Sentinels.
    fn check_monitor(&self, args: [&[u8]; 4]) -> Result<config::Master, &'static str> {
        let [name, host, port, quorum] = args;
        let quorum = parse_integer(quorum).ok_or("ERR Invalid quorum")?;
        let port = parse_integer(port).ok_or("ERR Invalid port")?;
        let quorum = i32::try_from(quorum).ok().and_then(|quorum| u32::try_from(quorum).ok());
        let quorum = quorum.and_then(NonZeroU32::new).ok_or("ERR Quorum must be 1 or greater.")?;
        let host = std::str::from_utf8(host).unwrap_or_default();
        let is_number = host.parse::<IpAddr>().is_ok();
        if !is_number && !self.globals.resolve_hostnames {
            return Err("ERR Invalid IP address or hostname specified");
        }
        let name = std::str::from_utf8(name).ok().and_then(MasterName::new);
        let name = name.ok_or("ERR Invalid master name")?;
        if self.names.contains_key(&name) {
            return Err("ERR Duplicate master name.");
        }
        if self.names.len() >= limits::MASTERS_MAX {
            return Err("ERR Too many masters.");
        }
        let port = u16::try_from(port).unwrap_or(0);
        let address = Address::new(host, port).map_err(|error| match error {
            AddressError::Host => "ERR Invalid IP address or hostname specified",
            AddressError::Port => "ERR Invalid port number.",
        })?;
        let mut settings = config::Master::new(name, Monitor { address, quorum });
        let in_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        settings.down_after_ms = in_ms(self.periods.default_down_after);
        settings.failover_timeout_ms = in_ms(self.periods.default_failover_timeout);
        Ok(settings)
    }

    pub(super) fn set_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        name: &[u8],
        args: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        let Some(id) = self.find(name) else {
            encode::error(out, NO_SUCH_MASTER);
            return Served::Done;
        };
        let words: Vec<String> =
            args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let mut rest: &[String] = &words;
        while let [option, tail @ ..] = rest {
            let lower = option.to_ascii_lowercase();
            let count = if lower == "rename-command" { 2 } else { 1 };
            let outcome = match tail.split_at_checked(count) {
                Some((values, after)) => {
                    rest = after;
                    self.set_one(id, &lower, option, values)
                }
                None => Outcome::Refused(unknown_option(option)),
            };
            let (values, is_credentials) = match outcome {
                Outcome::Set(values) => (values, false),
                Outcome::Credentials(values) => (values, true),
                Outcome::Refused(text) => {
                    encode::error(out, &text);
                    // What was taken before stays.
                    self.apply_settings(id);
                    return Served::Done;
                }
            };
            if is_credentials {
                self.reconnect_servers(now, id);
            }
            self.say_set(id, option, &values);
        }
        self.apply_settings(id);
        self.store.want_for(Waiter::Client(key));
        Served::Waits
    }

    fn say_set(&mut self, id: MasterId, option: &str, values: &[String]) {
        let Some(subject) = self.masters.get(&id).and_then(|m| m.subject(Node::Master)) else {
            return;
        };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let said = Said::of(&Event::Set(subject, option, &values));
        self.say(Some(id), said);
    }

    fn set_one(&mut self, id: MasterId, lower: &str, option: &str, values: &[String]) -> Outcome {
        let [value, more @ ..] = values else { return Outcome::Refused(unknown_option(option)) };
        let denies_scripts = self.globals.deny_scripts_reconfig;
        let Some(master) = self.masters.get_mut(&id) else {
            return Outcome::Refused(NO_SUCH_MASTER.to_owned());
        };
        let settings = &mut master.settings;
        let bad = || {
            let text = format!("ERR Invalid argument '{value}' for SENTINEL SET '{option}'");
            Outcome::Refused(text)
        };
        let shown = || Outcome::Set(vec![value.clone()]);
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        match lower {
            "down-after-milliseconds" => {
                let Some(ms) = positive_ms(value) else { return bad() };
                settings.down_after_ms = ms;
            }
            "failover-timeout" => {
                let Some(ms) = positive_ms(value) else { return bad() };
                settings.failover_timeout_ms = ms;
            }
            "parallel-syncs" => {
                let Some(count) = positive(value) else { return bad() };
                settings.parallel_syncs = count;
            }
            "quorum" => {
                let Some(count) = positive(value) else { return bad() };
                settings.monitor.quorum = count;
            }
            "master-reboot-down-after-period" | "primary-reboot-down-after-period" => {
                let ms = parse_integer(value.as_bytes()).and_then(|ms| u64::try_from(ms).ok());
                let Some(ms) = ms.filter(|ms| *ms <= limits::SENTINEL_TIME_MS_MAX) else {
                    return bad();
                };
                settings.reboot_down_after_ms = ms;
            }
            "notification-script" | "client-reconfig-script" if denies_scripts => {
                return Outcome::Refused(SCRIPTS_DENIED.to_owned());
            }
            "notification-script" => settings.notification_script = some(value),
            "client-reconfig-script" => settings.client_reconfig_script = some(value),
            "auth-pass" => {
                settings.auth_pass = some(value).map(Secret::new);
                return Outcome::Credentials(vec!["******".to_owned()]);
            }
            "auth-user" => {
                settings.auth_user = some(value);
                return Outcome::Credentials(vec![value.clone()]);
            }
            "rename-command" => return rename(settings, value, more),
            "fast-down" => {
                let Some(is_fast) = yes_no(value) else { return bad() };
                master.is_fast_down = is_fast;
            }
            "min-copies" => {
                let Ok(copies) = value.parse() else { return bad() };
                master.min_copies = copies;
            }
            _ => return Outcome::Refused(unknown_option(option)),
        }
        shown()
    }

    pub(super) fn config_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        args: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        match args {
            [verb, glob] if verb.eq_ignore_ascii_case(b"get") => {
                self.config_get(key, glob, out);
                Served::Done
            }
            [verb, option, value] if verb.eq_ignore_ascii_case(b"set") => {
                let option = String::from_utf8_lossy(option).into_owned();
                let value = String::from_utf8_lossy(value).into_owned();
                if let Err(text) = self.config_set(now, &option, &value) {
                    encode::error(out, &text);
                    return Served::Done;
                }
                self.store.want_for(Waiter::Client(key));
                Served::Waits
            }
            _ => {
                encode::error(out, CONFIG_USAGE);
                Served::Done
            }
        }
    }

    fn config_get(&self, key: ClientKey, glob: &[u8], out: &mut Vec<u8>) {
        let globals = &self.globals;
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let secret = globals.sentinel_pass.as_ref().map(|secret| secret.expose().to_owned());
        let all = [
            ("resolve-hostnames", yes(globals.resolve_hostnames)),
            ("announce-hostnames", yes(globals.announce_hostnames)),
            ("announce-ip", globals.announce_ip.clone().unwrap_or_default()),
            ("announce-port", globals.announce_port.unwrap_or(0).to_string()),
            ("sentinel-user", globals.sentinel_user.clone().unwrap_or_default()),
            ("sentinel-pass", secret.unwrap_or_default()),
        ];
        let glob = glob.to_ascii_lowercase();
        let found: Vec<_> =
            all.iter().filter(|(name, _)| is_match(&glob, name.as_bytes())).collect();
        match self.protocol(key) {
            Protocol::Resp2 => encode::array_header(out, found.len() * 2),
            Protocol::Resp3 => encode::map_header(out, found.len()),
        }
        for (name, value) in found {
            encode::bulk(out, name.as_bytes());
            encode::bulk(out, value.as_bytes());
        }
    }

    fn config_set(&mut self, now: Instant, option: &str, value: &str) -> Result<(), String> {
        let invalid = || format!("ERR Invalid value '{value}' to SENTINEL CONFIG SET '{option}'");
        let some = (!value.is_empty()).then(|| value.to_owned());
        let mut has_new_credentials = false;
        match option.to_ascii_lowercase().as_str() {
            "resolve-hostnames" => {
                self.globals.resolve_hostnames = yes_no(value).ok_or_else(invalid)?;
            }
            "announce-hostnames" => {
                self.globals.announce_hostnames = yes_no(value).ok_or_else(invalid)?;
            }
            "announce-ip" => {
                if value.contains(',') || value.contains(char::is_whitespace) {
                    return Err(invalid());
                }
                self.globals.announce_ip = some;
            }
            "announce-port" => {
                let port = parse_integer(value.as_bytes()).and_then(|p| u16::try_from(p).ok());
                let port = port.ok_or_else(invalid)?;
                self.globals.announce_port = (port != 0).then_some(port);
            }
            "sentinel-user" => {
                self.globals.sentinel_user = some;
                has_new_credentials = true;
            }
            "sentinel-pass" => {
                self.globals.sentinel_pass = some.map(Secret::new);
                has_new_credentials = true;
            }
            _ => return Err(format!("ERR Invalid argument '{option}' to SENTINEL CONFIG SET")),
        }
        if has_new_credentials {
            let links: Vec<_> = self.peer_links.values().map(|known| known.link).collect();
            for link in links {
                self.cut(now, link);
            }
        }
        self.dirty.extend(self.masters.keys().copied());
        Ok(())
    }

    pub(super) fn debug_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        args: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        if args.is_empty() {
            let all = self.periods.all();
            match self.protocol(key) {
                Protocol::Resp2 => encode::array_header(out, all.len() * 2),
                Protocol::Resp3 => encode::map_header(out, all.len()),
            }
            for (name, value) in all {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_millis().to_string().as_bytes());
            }
            return;
        }
        let mut periods = self.periods;
        for pair in args.chunks(2) {
            let [option, value] = pair else {
                let option = pair.first().copied().unwrap_or_default();
                encode::error(out, &unknown_debug(option));
                return;
            };
            let Some(period) = periods.by_name(option) else {
                encode::error(out, &unknown_debug(option));
                return;
            };
            let text = String::from_utf8_lossy(value);
            let Some(ms) = positive_ms(&text) else {
                let option = String::from_utf8_lossy(option);
                let error = format!("ERR Invalid argument '{text}' for SENTINEL DEBUG '{option}'");
                encode::error(out, &error);
                return;
            };
            *period = Duration::from_millis(ms);
        }
        if (periods.tilt_trigger, periods.tilt_period)
            != (self.periods.tilt_trigger, self.periods.tilt_period)
        {
            self.tilt = Tilt::new(now, periods.tilt_trigger, periods.tilt_period);
        }
        self.periods = periods;
        for id in self.masters.keys().copied().collect::<Vec<_>>() {
            self.apply_settings(id);
        }
        encode::simple(out, "OK");
    }
}

fn rename(settings: &mut config::Master, from: &str, more: &[String]) -> Outcome {
    let Some(to) = more.first() else {
        return Outcome::Refused(unknown_option("rename-command"));
    };
    if from.is_empty() || to.is_empty() {
        let bad = if from.is_empty() { from } else { to };
        let text = format!("ERR Invalid argument '{bad}' for SENTINEL SET 'rename-command'");
        return Outcome::Refused(text);
    }
    settings.renamed_commands.retain(|known| !known.from.eq_ignore_ascii_case(from));
    if !from.eq_ignore_ascii_case(to) {
        settings.renamed_commands.push(RenamedCommand { from: from.to_owned(), to: to.clone() });
    }
    Outcome::Set(vec![from.to_owned(), to.clone()])
}

fn unknown_option(option: &str) -> String {
    format!("ERR Unknown option or number of arguments for SENTINEL SET '{option}'")
}

fn unknown_debug(option: &[u8]) -> String {
    let option = String::from_utf8_lossy(option);
    format!("ERR Unknown option or number of arguments for SENTINEL DEBUG '{option}'")
}
