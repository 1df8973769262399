//! `vrrp_instance` and `vrrp_sync_group`: what their statements mean.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::quoted;
use super::grammar::{Statement, Word};
use super::model::{
    Announcing, ChecksumForm, Command, Config, Group, Notify, Peer, Route, Tracks, VirtualAddress,
};
use super::reader::{Reader, block, items};
use super::{global, keywords};
use crate::config::diagnostic::Collector;
use crate::wire::vrrp::{Auth, Password, Priority, Vrid};

/// Reads all statements.
pub(super) fn read(statements: &[Statement], collector: &mut Collector<'_>) -> Config {
    let mut reader = Reader {
        collector,
        config: Config::default(),
        defaults: global::Defaults::default(),
        seen: std::collections::BTreeMap::new(),
    };
    for statement in statements {
        reader.top(statement);
    }
    global::read(statements, &mut reader);
    let named = |keyword: &'static str| {
        statements.iter().filter(move |statement| statement.keyword.text == keyword)
    };
    for statement in named("vrrp_script") {
        reader.script(statement);
    }
    for statement in named("vrrp_track_file").chain(named("track_file")) {
        reader.file(statement);
    }
    for statement in named("vrrp_track_process") {
        reader.process(statement);
    }
    for statement in named("vrrp_instance") {
        reader.instance(statement);
    }
    for statement in named("vrrp_sync_group") {
        reader.group(statement);
    }
    reader.virtual_servers(statements);
    reader.config
}

/// What is known of a virtual router while its block is read.
pub(super) struct Draft<'s> {
    pub(super) name: &'s Word,
    pub(super) version: u8,
    pub(super) version_span: Option<Range<usize>>,
    pub(super) unicast_span: Option<Range<usize>>,
    pub(super) is_master: bool,
    pub(super) is_strict: bool,
    pub(super) interface: Option<String>,
    pub(super) vrid: Option<Vrid>,
    pub(super) priority: Option<Priority>,
    pub(super) micros: u64,
    pub(super) micros_span: Range<usize>,
    pub(super) addresses: Vec<(VirtualAddress, Range<usize>)>,
    pub(super) excluded: Vec<(VirtualAddress, Range<usize>)>,
    pub(super) routes: Vec<Route>,
    pub(super) auth: Option<(Auth, Range<usize>)>,
    pub(super) never: Option<Range<usize>>,
    pub(super) delay: Option<(Duration, Range<usize>)>,
    pub(super) source: Option<IpAddr>,
    pub(super) group: Option<IpAddr>,
    pub(super) peers: Vec<(Peer, Range<usize>)>,
    pub(super) unicast_ttl: u8,
    pub(super) checks_source: bool,
    pub(super) skips_list_check: bool,
    pub(super) tracks_source: bool,
    pub(super) tracks_primary: bool,
    pub(super) down_adverts: u8,
    pub(super) adverts_before_yielding: bool,
    pub(super) answers_lower: bool,
    pub(super) announcing: Announcing,
    pub(super) tracks: Tracks,
    pub(super) notify: Notify,
    pub(super) virtual_mac: Option<Option<String>>,
    pub(super) sends_below: bool,
    pub(super) checksum: ChecksumForm,
}

impl<'s> Draft<'s> {
    fn new(name: &'s Word, defaults: &global::Defaults) -> Self {
        Self {
            name,
            version: defaults.version,
            version_span: None,
            unicast_span: None,
            is_master: false,
            is_strict: defaults.is_strict,
            interface: defaults.interface.clone(),
            vrid: None,
            priority: None,
            micros: 1_000_000,
            micros_span: name.span.clone(),
            addresses: Vec::new(),
            excluded: Vec::new(),
            routes: Vec::new(),
            auth: None,
            never: None,
            delay: None,
            source: None,
            group: None,
            peers: Vec::new(),
            unicast_ttl: 255,
            checks_source: defaults.checks_source,
            skips_list_check: defaults.skips_list_check,
            tracks_source: false,
            tracks_primary: true,
            down_adverts: defaults.down_adverts,
            adverts_before_yielding: defaults.adverts_before_yielding,
            answers_lower: defaults.answers_lower,
            announcing: defaults.announcing.clone(),
            tracks: Tracks::default(),
            notify: Notify::default(),
            virtual_mac: None,
            sends_below: false,
            checksum: ChecksumForm::default(),
        }
    }
}

impl Reader<'_, '_> {
    fn top(&mut self, statement: &Statement) {
        let keyword = &statement.keyword;
        let text = keyword.text.as_str();
        if text.starts_with("include") && keywords::TOP.contains(&text) {
            let message = "the files meant here could not be read";
            self.warn("include-not-followed", &keyword.span, message);
        } else if keywords::TOP_UNUSED.contains(&text) {
            self.unused(keyword);
        } else if !keywords::TOP.contains(&text) {
            self.unknown(keyword, keywords::TOP.iter().copied());
        }
    }

    fn instance(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the router has no name");
        };
        if self.config.instances.iter().any(|instance| instance.name == name.text) {
            let message = format!("{} is defined already, ignored", quoted(&name.text));
            return self.warn("duplicate-instance", &name.span, message);
        }
        let mut draft = Draft::new(name, &self.defaults);
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
                draft.vrid = self.small(inner, 1..=255, "ignored").and_then(Vrid::new);
            }
            "priority" => {
                let number = self.small(inner, 1..=255, "100 is used");
                draft.priority = Some(Priority(number.unwrap_or(100)));
            }
            "advert_int" => {
                if let Some(micros) = self.micros(inner, 10_000..=255_000_000, "ignored") {
                    draft.micros = micros;
                    draft.micros_span =
                        inner.arguments.first().map_or(0..0, |word| word.span.clone());
                }
            }
            "version" => {
                if let Some(version) = self.small(inner, 2..=3, "ignored") {
                    draft.version = version;
                    draft.version_span = Some(span.clone());
                }
            }
            "virtual_ipaddress" => self.addresses(inner, &mut draft.addresses),
            "virtual_ipaddress_excluded" => self.addresses(inner, &mut draft.excluded),
            "virtual_routes" => draft.routes = self.routes(inner),
            "authentication" => self.authentication(draft, inner),
            "nopreempt" => draft.never = Some(span.clone()),
            "preempt" => draft.never = None,
            "preempt_delay" => {
                let micros = self.micros(inner, 0..=1_000_000_000, "ignored");
                draft.delay = micros.map(|micros| (Duration::from_micros(micros), span.clone()));
            }
            "strict_mode" => {
                draft.is_strict = self.flag(inner);
                if draft.is_strict {
                    self.warn_strict(span);
                }
            }
            "skip_check_adv_addr" => draft.skips_list_check = self.flag(inner),
            "higher_prio_send_advert" => draft.adverts_before_yielding = self.flag(inner),
            "lower_prio_no_advert" => draft.answers_lower = !self.flag(inner),
            "down_timer_adverts" => {
                draft.down_adverts = self.small(inner, 1..=100, "3 is used").unwrap_or(3);
            }
            // What keepalived allows with it is never forbidden here.
            "accept" => {}
            "use_vmac" => draft.virtual_mac = Some(first.map(|word| word.text.clone())),
            "vmac_xmit_base" => draft.sends_below = self.flag(inner),
            "v3_checksum_as_v2" if self.flag(inner) => draft.checksum = ChecksumForm::Plain,
            "v3_checksum_as_v2" => draft.checksum = ChecksumForm::Learned,
            // With `never` the old form is not even learned there; here it is only an answer.
            "old_unicast_checksum" if first.is_none() => draft.checksum = ChecksumForm::Group,
            "old_unicast_checksum" => {}
            other if other.starts_with("garp_") && other != "garp_extra_if" => {
                self.announcing(inner, other, &mut draft.announcing);
            }
            "gna_interval" => self.announcing(inner, "gna_interval", &mut draft.announcing),
            _ => self.reach_or_track(draft, inner),
        }
    }

    fn reach_or_track(&mut self, draft: &mut Draft<'_>, inner: &Statement) {
        let first = inner.arguments.first();
        match inner.keyword.text.as_str() {
            "unicast_src_ip" => {
                draft.source = first.and_then(|word| self.address(word));
                draft.unicast_span = Some(inner.keyword.span.clone());
            }
            "mcast_src_ip" => draft.source = first.and_then(|word| self.address(word)),
            "mcast_dst_ip" => {
                let group = first.and_then(|word| self.address(word));
                draft.group = group.filter(IpAddr::is_multicast);
                if draft.group.is_none() {
                    let message = "it is no multicast address, ignored";
                    self.warn("not-a-group", &inner.keyword.span, message);
                }
            }
            "unicast_peer" => {
                draft.unicast_span = Some(inner.keyword.span.clone());
                self.peers(inner, &mut draft.peers);
            }
            "unicast_ttl" => {
                draft.unicast_ttl = self.small(inner, 1..=255, "255 is used").unwrap_or(255);
            }
            "check_unicast_src" => draft.checks_source = self.flag(inner),
            "track_src_ip" => draft.tracks_source = true,
            "dont_track_primary" => draft.tracks_primary = false,
            _ if self.tracks(inner, &mut draft.tracks) => {}
            _ if self.notify(inner, &mut draft.notify) => {}
            other if keywords::INSTANCE_UNUSED.contains(&other) => self.unused(&inner.keyword),
            _ => self.unknown(&inner.keyword, keywords::INSTANCE.iter().copied()),
        }
    }

    /// Reads what is tracked; false if the statement is about something else.
    fn tracks(&mut self, inner: &Statement, tracks: &mut Tracks) -> bool {
        match inner.keyword.text.as_str() {
            "track_script" => {
                let is_known = |config: &Config, name: &str| {
                    config.scripts.iter().any(|script| script.name == name)
                };
                let unknown = ("unknown-script", "script");
                tracks.scripts.extend(self.tracked(inner, 253, is_known, unknown));
            }
            "track_interface" => {
                let unknown = ("unknown-interface", "interface");
                tracks.interfaces.extend(self.tracked(inner, 253, |_, _| true, unknown));
            }
            "track_file" => {
                let is_known =
                    |config: &Config, name: &str| config.files.iter().any(|file| file.name == name);
                let unknown = ("unknown-file", "tracked file");
                tracks.files.extend(self.tracked(inner, 254, is_known, unknown));
            }
            "track_process" => {
                let is_known = |config: &Config, name: &str| {
                    config.processes.iter().any(|process| process.name == name)
                };
                let unknown = ("unknown-process", "tracked process");
                tracks.processes.extend(self.tracked(inner, 253, is_known, unknown));
            }
            _ => return false,
        }
        true
    }

    /// Reads who is notified; false if the statement is about something else.
    fn notify(&mut self, inner: &Statement, notify: &mut Notify) -> bool {
        let field: fn(&mut Notify) -> &mut Option<Command> = match inner.keyword.text.as_str() {
            "notify_master" => |notify| &mut notify.active,
            "notify_backup" => |notify| &mut notify.backup,
            "notify_fault" => |notify| &mut notify.fault,
            "notify_stop" => |notify| &mut notify.stop,
            "notify_deleted" => |notify| &mut notify.deleted,
            "notify_master_rx_lower_pri" => |notify| &mut notify.lower,
            "notify" => |notify| &mut notify.any,
            _ => return false,
        };
        *field(notify) = self.command(inner);
        true
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
                _ => self.unknown(&inner.keyword, ["auth_type", "auth_pass"].into_iter()),
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

    fn group(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the group has no name");
        };
        let mut group = Group {
            name: name.text.clone(),
            members: Vec::new(),
            tracks: Tracks::default(),
            notify: Notify::default(),
            uses_weights: false,
        };
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "group" => self.members(inner, &mut group.members),
                "sync_group_tracking_weight" => group.uses_weights = true,
                "global_tracking" => self.unused(&inner.keyword),
                _ if self.tracks(inner, &mut group.tracks) => {}
                _ if self.notify(inner, &mut group.notify) => {}
                other if keywords::INSTANCE_UNUSED.contains(&other) => self.unused(&inner.keyword),
                _ => self.unknown(&inner.keyword, keywords::GROUP.iter().copied()),
            }
        }
        if group.members.len() < 2 {
            let message = "the group has fewer than two members";
            self.warn("group-too-small", &name.span, message);
        }
        if !group.uses_weights {
            self.check_group_weights(&group, name);
        }
        self.config.groups.push(group);
    }

    fn members(&mut self, statement: &Statement, members: &mut Vec<String>) {
        for word in items(statement) {
            let is_taken = |group: &Group| group.members.contains(&word.text);
            if !self.config.instances.iter().any(|instance| instance.name == word.text) {
                let message = format!("there is no router {}, ignored", quoted(&word.text));
                self.warn("unknown-member", &word.span, message);
            } else if members.contains(&word.text) || self.config.groups.iter().any(is_taken) {
                let message = format!("{} is in a group already, ignored", quoted(&word.text));
                self.warn("duplicate-member", &word.span, message);
            } else {
                members.push(word.text.clone());
            }
        }
    }
}
