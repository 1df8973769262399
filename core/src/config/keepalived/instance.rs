//! What statements mean: virtual routers, scripts and groups.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::{Collector, Diagnostic, quoted};
use super::super::suggest;
use super::grammar::{Statement, Word};
use super::{Config, Group, Instance, Preempt, Script, TrackedScript, VirtualAddress, keywords};
use crate::wire::vrrp::{AdvertInterval, Auth, Centiseconds, Family, Password, Priority, Vrid};

/// Reads all statements.
pub(super) fn read(statements: &[Statement], collector: &mut Collector<'_>) -> Config {
    let mut reader = Reader { collector, config: Config::default(), seen: BTreeMap::new() };
    let named = |keyword: &'static str| {
        statements.iter().filter(move |statement| statement.keyword.text == keyword)
    };
    let mut version = 2;
    for statement in statements {
        let keyword = &statement.keyword;
        if keyword.text.starts_with("include") && keywords::TOP.contains(&keyword.text.as_str()) {
            reader.warn("include-not-followed", &keyword.span, "included files are not read");
        } else if keyword.text.starts_with("virtual_server") {
            let message = "virtual servers are not read yet";
            reader.warn("virtual-server-not-read", &keyword.span, message);
        } else if !keywords::TOP.contains(&keyword.text.as_str()) {
            reader.unknown(keyword, keywords::TOP);
        }
    }
    for statement in named("global_defs").flat_map(block) {
        match statement.keyword.text.as_str() {
            "router_id" => {
                reader.config.router_id = statement.arguments.first().map(|word| word.text.clone());
            }
            "vrrp_version" => version = reader.version(statement).unwrap_or(version),
            other if keywords::GLOBAL.contains(&other) => {}
            other if keywords::GLOBAL_UNUSED.contains(&other) => reader.unused(&statement.keyword),
            _ => reader.unknown(&statement.keyword, keywords::GLOBAL),
        }
    }
    for statement in named("vrrp_script") {
        reader.script(statement);
    }
    for statement in named("vrrp_instance") {
        reader.instance(statement, version);
    }
    for statement in named("vrrp_sync_group") {
        reader.group(statement);
    }
    reader.config
}

fn block(statement: &Statement) -> &[Statement] {
    statement.block.as_deref().unwrap_or_default()
}

/// Returns all words of a block, for lists of names.
fn items(statement: &Statement) -> impl Iterator<Item = &Word> {
    block(statement).iter().flat_map(|item| std::iter::once(&item.keyword).chain(&item.arguments))
}

struct Reader<'r, 't> {
    collector: &'r mut Collector<'t>,
    config: Config,
    /// Interface, number and family of each virtual router, and where it is.
    seen: BTreeMap<(String, Vrid, Family), Range<usize>>,
}

/// What is known of a virtual router while its block is read.
struct Draft<'s> {
    name: &'s Word,
    version: u8,
    version_span: Option<Range<usize>>,
    unicast_span: Option<Range<usize>>,
    is_master: bool,
    interface: Option<String>,
    vrid: Option<Vrid>,
    priority: Option<Priority>,
    micros: u64,
    micros_span: Range<usize>,
    addresses: Vec<(VirtualAddress, Range<usize>)>,
    excluded: Vec<(VirtualAddress, Range<usize>)>,
    auth: Option<(Auth, Range<usize>)>,
    never: Option<Range<usize>>,
    delay: Option<(Duration, Range<usize>)>,
    source: Option<IpAddr>,
    peers: Vec<(IpAddr, Range<usize>)>,
    scripts: Vec<TrackedScript>,
}

impl Reader<'_, '_> {
    fn warn(&mut self, code: &'static str, span: &Range<usize>, message: impl Into<String>) {
        self.collector.report(self.collector.warning(code, span, message));
    }

    fn error(&mut self, code: &'static str, span: &Range<usize>, message: impl Into<String>) {
        self.collector.report(self.collector.error(code, span, message));
    }

    fn unused(&mut self, keyword: &Word) {
        let message = format!("{} has no effect here yet", quoted(&keyword.text));
        self.warn("keyword-without-effect", &keyword.span, message);
    }

    fn unknown(&mut self, keyword: &Word, known: &[&str]) {
        let message = format!("unknown keyword {}, ignored", quoted(&keyword.text));
        let near = suggest::nearest(&keyword.text, known.iter().copied());
        let warning: Diagnostic =
            self.collector.warning("unknown-keyword", &keyword.span, message).did_you_mean(near);
        self.collector.report(warning);
    }

    /// Returns the first argument's number if it is in its range, or tells what is used instead.
    fn number(
        &mut self,
        statement: &Statement,
        range: std::ops::RangeInclusive<i64>,
        instead: &str,
    ) -> Option<i64> {
        let word = statement.arguments.first().unwrap_or(&statement.keyword);
        let number = word.text.parse::<i64>().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("{} is not a number that fits; {instead}", quoted(&word.text));
            let expected = format!("{} to {}", range.start(), range.end());
            let warning = self.collector.warning("number-out-of-range", &word.span, message);
            self.collector.report(warning.expected(expected));
        }
        number
    }

    /// Returns the first argument's time in microseconds, if it is in its range.
    fn micros(
        &mut self,
        statement: &Statement,
        range: std::ops::RangeInclusive<u64>,
        instead: &str,
    ) -> Option<u64> {
        let word = statement.arguments.first().unwrap_or(&statement.keyword);
        let micros = parse_micros(&word.text).filter(|micros| range.contains(micros));
        if micros.is_none() {
            let message = format!("{} is not a time that fits; {instead}", quoted(&word.text));
            let (low, high) = (*range.start() as f64 / 1e6, *range.end() as f64 / 1e6);
            let warning = self.collector.warning("time-out-of-range", &word.span, message);
            self.collector.report(warning.expected(format!("{low} to {high} seconds")));
        }
        micros
    }

    fn version(&mut self, statement: &Statement) -> Option<u8> {
        self.number(statement, 2..=3, "ignored").and_then(|number| u8::try_from(number).ok())
    }

    fn script(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the script has no name");
        };
        let second = Duration::from_secs(1);
        let mut script = Script {
            name: name.text.clone(),
            argv: Vec::new(),
            interval: second,
            timeout: None,
            weight: 0,
            rise: 1,
            fall: 1,
            span: name.span.clone(),
        };
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "script" => {
                    let command = |word: &Word| match word.is_quoted {
                        true => split_command(&word.text),
                        false => vec![word.text.clone()],
                    };
                    script.argv = inner.arguments.iter().flat_map(command).collect();
                }
                "interval" => {
                    let micros =
                        self.micros(inner, 1..=u64::from(u32::MAX) * 1_000_000, "1 is used");
                    script.interval = micros.map_or(second, Duration::from_micros);
                }
                "timeout" => {
                    let micros = self.micros(inner, 1..=u64::from(u32::MAX) * 1_000_000, "ignored");
                    script.timeout = micros.map(Duration::from_micros);
                }
                "weight" => {
                    let weight = self.number(inner, -253..=253, "0 is used").unwrap_or(0);
                    script.weight = i16::try_from(weight).unwrap_or(0);
                }
                "rise" | "fall" => {
                    let count = self.number(inner, 1..=i64::from(i32::MAX), "1 is used");
                    let count = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
                    let field = if inner.keyword.text == "rise" {
                        &mut script.rise
                    } else {
                        &mut script.fall
                    };
                    *field = count;
                }
                other if keywords::SCRIPT.contains(&other) => {}
                _ => self.unknown(&inner.keyword, keywords::SCRIPT),
            }
        }
        if script.argv.is_empty() {
            self.warn("script-without-program", &name.span, "the script has no program, ignored");
            return;
        }
        self.config.scripts.push(script);
    }

    fn instance(&mut self, statement: &Statement, version: u8) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the router has no name");
        };
        if self.config.instances.iter().any(|instance| instance.name == name.text) {
            let message = format!("{} is defined already, ignored", quoted(&name.text));
            return self.warn("duplicate-instance", &name.span, message);
        }
        let mut draft = Draft {
            name,
            version,
            version_span: None,
            unicast_span: None,
            is_master: false,
            interface: None,
            vrid: None,
            priority: None,
            micros: 1_000_000,
            micros_span: name.span.clone(),
            addresses: Vec::new(),
            excluded: Vec::new(),
            auth: None,
            never: None,
            delay: None,
            source: None,
            peers: Vec::new(),
            scripts: Vec::new(),
        };
        for inner in block(statement) {
            self.keyword(&mut draft, inner);
        }
        self.finish(draft);
    }

    fn keyword(&mut self, draft: &mut Draft<'_>, inner: &Statement) {
        let span = &inner.keyword.span;
        let first = inner.arguments.first();
        match inner.keyword.text.as_str() {
            "state" => match first.map(|word| word.text.as_str()) {
                Some("MASTER") => draft.is_master = true,
                Some("BACKUP") => draft.is_master = false,
                _ => self.warn("unknown-state", span, "unknown state, BACKUP is used"),
            },
            "interface" => draft.interface = first.map(|word| word.text.clone()),
            "virtual_router_id" => {
                let number = self.number(inner, 1..=255, "ignored");
                draft.vrid =
                    number.and_then(|number| u8::try_from(number).ok()).and_then(Vrid::new);
            }
            "priority" => {
                let number = self.number(inner, 1..=255, "100 is used").unwrap_or(100);
                draft.priority = u8::try_from(number).ok().map(Priority);
            }
            "advert_int" => {
                if let Some(micros) = self.micros(inner, 10_000..=255_000_000, "ignored") {
                    draft.micros = micros;
                    draft.micros_span =
                        inner.arguments.first().map_or(0..0, |word| word.span.clone());
                }
            }
            "version" => {
                if let Some(version) = self.version(inner) {
                    draft.version = version;
                    draft.version_span = Some(span.clone());
                }
            }
            "virtual_ipaddress" => self.addresses(inner, &mut draft.addresses),
            "virtual_ipaddress_excluded" => self.addresses(inner, &mut draft.excluded),
            "authentication" => self.authentication(draft, inner),
            "unicast_src_ip" | "mcast_src_ip" => {
                draft.source = first.and_then(|word| self.address(word));
                if inner.keyword.text == "unicast_src_ip" {
                    draft.unicast_span = Some(span.clone());
                }
            }
            "unicast_peer" => {
                draft.unicast_span = Some(span.clone());
                for item in block(inner) {
                    if let Some(peer) = self.address(&item.keyword) {
                        draft.peers.push((peer, item.keyword.span.clone()));
                    }
                }
            }
            "nopreempt" => draft.never = Some(span.clone()),
            "preempt" => draft.never = None,
            "preempt_delay" => {
                let micros = self.micros(inner, 0..=1_000_000_000, "ignored");
                draft.delay = micros.map(|micros| (Duration::from_micros(micros), span.clone()));
            }
            "track_script" => self.track(draft, inner),
            other if keywords::INSTANCE_UNUSED.contains(&other) => {
                self.unused(&inner.keyword);
            }
            _ => self.unknown(&inner.keyword, keywords::INSTANCE),
        }
    }

    fn address(&mut self, word: &Word) -> Option<IpAddr> {
        let address = word.text.parse().ok();
        if address.is_none() {
            let message = format!("{} is not an address, ignored", quoted(&word.text));
            self.warn("invalid-address", &word.span, message);
        }
        address
    }

    fn addresses(&mut self, statement: &Statement, out: &mut Vec<(VirtualAddress, Range<usize>)>) {
        for item in block(statement) {
            let word = &item.keyword;
            let (text, prefix) = match word.text.split_once('/') {
                Some((text, prefix)) => (text, Some(prefix)),
                None => (word.text.as_str(), None),
            };
            let prefix_is_missing = prefix.is_none();
            let parsed = text.parse::<IpAddr>().ok().and_then(|address| {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
                (prefix <= bits).then_some((address, prefix))
            });
            let Some((address, prefix)) = parsed else {
                let message = format!("{} is not an address, ignored", quoted(&word.text));
                self.warn("invalid-address", &word.span, message);
                continue;
            };
            if prefix_is_missing {
                let message = format!("{address} has no mask, the address alone is meant");
                self.warn("missing-mask", &word.span, message);
            }
            let device = item.arguments.windows(2).find_map(|pair| match pair {
                [key, value] if key.text == "dev" => Some(value.text.clone()),
                _ => None,
            });
            if out.iter().any(|(known, _)| known.address == address) {
                let message = format!("{address} is listed twice");
                self.warn("duplicate-address", &word.span, message);
            }
            out.push((VirtualAddress { address, prefix, device }, word.span.clone()));
        }
    }

    fn authentication(&mut self, draft: &mut Draft<'_>, statement: &Statement) {
        let (mut is_password, mut password) = (false, None);
        for inner in block(statement) {
            let first = inner.arguments.first();
            match (inner.keyword.text.as_str(), first) {
                ("auth_type", Some(word)) => match word.text.as_str() {
                    "PASS" => is_password = true,
                    "AH" => {
                        let message = "the authentication header (AH) is not supported";
                        self.error("auth-header", &word.span, message);
                    }
                    _ => self.warn("unknown-auth-type", &word.span, "unknown type, ignored"),
                },
                ("auth_pass", Some(word)) => {
                    if word.text.len() > 8 {
                        let message = "the password is cut to 8 bytes";
                        self.warn("password-cut", &inner.keyword.span, message);
                    }
                    password = Some(Password::new(word.text.as_bytes()));
                }
                _ => self.unknown(&inner.keyword, &["auth_type", "auth_pass"]),
            }
        }
        let span = statement.keyword.span.clone();
        match password.filter(|_| is_password) {
            Some(password) => draft.auth = Some((Auth::Password(password), span)),
            None if is_password => {
                self.warn("missing-password", &span, "there is no password, ignored");
            }
            None => {}
        }
    }

    fn track(&mut self, draft: &mut Draft<'_>, statement: &Statement) {
        for item in block(statement) {
            let name = &item.keyword;
            if !self.config.scripts.iter().any(|script| script.name == name.text) {
                let message = format!("there is no script {}, ignored", quoted(&name.text));
                self.warn("unknown-script", &name.span, message);
                continue;
            }
            let weight = item.arguments.windows(2).find_map(|pair| match pair {
                [key, value] if key.text == "weight" => value.text.parse().ok(),
                _ => None,
            });
            draft.scripts.push(TrackedScript { name: name.text.clone(), weight });
        }
    }

    /// Judges a block as a whole.
    fn finish(&mut self, mut draft: Draft<'_>) {
        let name = draft.name;
        let span = &name.span;
        let family = self.family(&mut draft);
        if family == Family::V6 {
            if let Some(span) = draft.version_span.take().filter(|_| draft.version == 2) {
                let message = "version 2 does not carry IPv6, version 3 is used";
                self.warn("version-ignored", &span, message);
            }
            draft.version = 3;
            self.check_link_local(&draft);
        }
        if let Some(span) = draft.unicast_span.take().filter(|_| draft.peers.is_empty()) {
            let message = "unicast without peers, multicast is used";
            self.warn("unicast-without-peers", &span, message);
        }
        let interface = draft.interface.take();
        if interface.is_none() {
            self.error("missing-interface", span, "the router has no interface");
        }
        if draft.vrid.is_none() {
            self.error("missing-virtual-router-id", span, "the router has no virtual_router_id");
        }
        if draft.addresses.is_empty() {
            let message = "the router has no address";
            if draft.version == 3 {
                self.error("missing-address", span, message);
            } else {
                self.warn("missing-address", span, message);
            }
        }
        let default = if draft.is_master { Priority::OWNER } else { Priority::DEFAULT };
        let priority = draft.priority.unwrap_or(default);
        self.check_weights(&draft, priority);
        let preempt = self.preempt(&draft, priority);
        let interval = self.interval(&draft);
        let auth = match draft.auth.take() {
            Some((_, span)) if draft.version == 3 => {
                self.warn("auth-in-version-3", &span, "version 3 has no authentication, ignored");
                Auth::None
            }
            Some((auth, _)) => auth,
            None => Auth::None,
        };
        let (Some(interface), Some(vrid)) = (interface, draft.vrid) else { return };
        let key = (interface.clone(), vrid, family);
        if let Some(other) = self.seen.insert(key, span.clone()) {
            let message = format!("virtual router {vrid} is on {} twice", quoted(&interface));
            let place = self.collector.place(&other);
            let error = self.collector.error("duplicate-virtual-router", span, message);
            self.collector.report(error.related(place, "it is here already"));
        }
        self.config.instances.push(Instance {
            name: name.text.clone(),
            interface,
            vrid,
            family,
            priority,
            interval,
            addresses: plain(draft.addresses),
            excluded: plain(draft.excluded),
            auth,
            preempt,
            source: draft.source,
            peers: draft.peers.into_iter().map(|(peer, _)| peer).collect(),
            scripts: draft.scripts,
        });
    }

    /// The first address decides; what is of another family is ignored.
    fn family(&mut self, draft: &mut Draft<'_>) -> Family {
        let first = draft.addresses.first().map(|(address, _)| address.address);
        let family = first.or(draft.source).map_or(Family::V4, Family::of);
        let mut strangers = Vec::new();
        draft.addresses.retain(|(address, span)| {
            let fits = Family::of(address.address) == family;
            if !fits {
                strangers.push(span.clone());
            }
            fits
        });
        draft.peers.retain(|(peer, span)| {
            let fits = Family::of(*peer) == family;
            if !fits {
                strangers.push(span.clone());
            }
            fits
        });
        for span in strangers {
            self.warn("mixed-families", &span, "the address is of another family, ignored");
        }
        if draft.source.is_some() && draft.peers.iter().any(|(peer, _)| Some(*peer) == draft.source)
        {
            self.warn("peer-is-self", &draft.name.span, "one of the peers is the router itself");
        }
        family
    }

    /// RFC 9568 section 5.2.9: the first IPv6 address is the link-local one.
    fn check_link_local(&mut self, draft: &Draft<'_>) {
        let Some((first, span)) = draft.addresses.first() else { return };
        let is_link_local = match first.address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if !is_link_local {
            let message = "the first IPv6 address should be link-local";
            self.warn("first-address-not-link-local", span, message);
        }
    }

    /// An owner's priority is never changed, so weights do nothing.
    fn check_weights(&mut self, draft: &Draft<'_>, priority: Priority) {
        let has_weight = |tracked: &TrackedScript| {
            let script = self.config.scripts.iter().find(|script| script.name == tracked.name);
            tracked
                .weight
                .or_else(|| script.map(|script| script.weight))
                .is_some_and(|weight| weight != 0)
        };
        if priority.is_owner() && draft.scripts.iter().any(has_weight) {
            let message = "weights do not change priority 255, ignored";
            self.warn("weight-of-owner", &draft.name.span, message);
        }
    }

    fn preempt(&mut self, draft: &Draft<'_>, priority: Priority) -> Preempt {
        match (&draft.never, &draft.delay) {
            (Some(span), _) if priority.is_owner() => {
                self.warn("nopreempt-of-owner", span, "priority 255 always preempts, ignored");
                Preempt::Always
            }
            (Some(_), Some((_, span))) => {
                self.warn("delay-without-preemption", span, "nopreempt needs no delay, ignored");
                Preempt::Never
            }
            (Some(_), None) => Preempt::Never,
            (None, Some((_, span))) if draft.is_master => {
                let message = "preempt_delay does not work with state MASTER, ignored";
                self.warn("delay-of-master", span, message);
                Preempt::Always
            }
            (None, &Some((delay, _))) if !delay.is_zero() => Preempt::After(delay),
            (None, _) => Preempt::Always,
        }
    }

    /// Rounds the interval to the unit of the version.
    fn interval(&mut self, draft: &Draft<'_>) -> AdvertInterval {
        let (unit, max) = if draft.version == 3 {
            (10_000, u64::from(Centiseconds::MAX))
        } else {
            (1_000_000, u64::from(u8::MAX))
        };
        // Half a unit goes up, and nothing becomes zero.
        let units = ((draft.micros + unit / 2) / unit).clamp(1, max);
        if units * unit != draft.micros {
            let used = Duration::from_micros(units * unit);
            let message =
                format!("the interval does not fit version {}, {used:?} is used", draft.version);
            self.warn("interval-rounded", &draft.micros_span, message);
        }
        let made = if draft.version == 3 {
            u16::try_from(units).ok().and_then(AdvertInterval::centiseconds)
        } else {
            u8::try_from(units).ok().and_then(AdvertInterval::seconds)
        };
        // Clamped: from 1 to the largest that fits.
        made.unwrap_or(AdvertInterval::Seconds(std::num::NonZeroU8::MIN))
    }

    fn group(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the group has no name");
        };
        let mut members = Vec::new();
        for list in block(statement).iter().filter(|inner| inner.keyword.text == "group") {
            for word in items(list) {
                if self.config.instances.iter().any(|instance| instance.name == word.text) {
                    members.push(word.text.clone());
                } else {
                    let message = format!("there is no router {}, ignored", quoted(&word.text));
                    self.warn("unknown-member", &word.span, message);
                }
            }
        }
        if members.len() < 2 {
            let message = "the group has fewer than two members";
            self.warn("group-too-small", &name.span, message);
        }
        self.config.groups.push(Group { name: name.text.clone(), members });
    }
}

fn plain(list: Vec<(VirtualAddress, Range<usize>)>) -> Vec<VirtualAddress> {
    list.into_iter().map(|(address, _)| address).collect()
}

/// Reads decimal seconds; what is finer than a microsecond is cut off.
fn parse_micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole.checked_mul(1_000_000)?.checked_add(digits.parse().ok()?)
}

/// Splits a command at blanks outside quotes.
fn split_command(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
