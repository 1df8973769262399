//! `global_defs`: what counts for all routers, and defaults that routers may change.

use std::net::IpAddr;
use std::time::Duration;

use super::grammar::Statement;
use super::keywords;
use super::model::{Announcing, Fifo, Framed};
use super::reader::{Reader, block};

/// What routers start from.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) version: u8,
    pub(super) announcing: Announcing,
    pub(super) is_strict: bool,
    pub(super) skips_list_check: bool,
    pub(super) checks_source: bool,
    pub(super) adverts_before_yielding: bool,
    pub(super) answers_lower: bool,
    pub(super) group_v4: Option<IpAddr>,
    pub(super) group_v6: Option<IpAddr>,
    pub(super) interface: Option<String>,
    pub(super) down_adverts: u8,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            version: 2,
            announcing: Announcing::default(),
            is_strict: false,
            skips_list_check: false,
            checks_source: false,
            adverts_before_yielding: false,
            answers_lower: true,
            group_v4: None,
            group_v6: None,
            interface: None,
            down_adverts: 3,
        }
    }
}

/// How long a program before the start or behind the end may take. As keepalived.
const FRAMED_LIMIT: Duration = Duration::from_secs(10);

/// Longest time that keepalived takes in its global times, seconds: a day.
const SECONDS_MAX: u64 = 86_400;

impl Reader<'_, '_> {
    /// Reads one statement of `global_defs`.
    pub(super) fn global(&mut self, statement: &Statement) {
        let first = statement.arguments.first();
        match statement.keyword.text.as_str() {
            "router_id" => {
                self.config.global.router_id = first.map(|word| word.text.clone());
            }
            "vrrp_version" => {
                let version = self.small(statement, 2..=3, "ignored");
                self.defaults.version = version.unwrap_or(self.defaults.version);
            }
            "script_user" => self.config.global.script_user = self.user(statement),
            "enable_script_security" => {
                self.config.global.has_script_security = self.flag(statement);
            }
            "vrrp_startup_delay" | "vrrp_delay_after_boot" => {
                let delay = self.time(statement, SECONDS_MAX).unwrap_or_default();
                let longest = self.config.global.startup_delay.max(delay);
                self.config.global.startup_delay = longest;
            }
            "notify_fifo" | "vrrp_notify_fifo" => {
                if let Some(word) = first {
                    self.config.global.fifos.push(Fifo { path: word.text.clone(), handler: None });
                }
            }
            "startup_script" => self.config.global.startup = self.framed(statement),
            "shutdown_script" => self.config.global.shutdown = self.framed(statement),
            "startup_script_timeout" | "shutdown_script_timeout" => self.framed_limit(statement),
            "notify_fifo_script" | "vrrp_notify_fifo_script" => self.fifo_handler(statement),
            other if other.starts_with("vrrp_garp_") || other == "vrrp_gna_interval" => {
                let name = other.trim_start_matches("vrrp_").to_owned();
                let mut announcing = self.defaults.announcing.clone();
                self.announcing(statement, &name, &mut announcing);
                self.defaults.announcing = announcing;
            }
            "vrrp_min_garp" => {
                if self.flag(statement) {
                    let announcing = &mut self.defaults.announcing;
                    announcing.repeat = 1;
                    announcing.delay = Duration::ZERO;
                }
            }
            other if keywords::GLOBAL_DEFAULTS.contains(&other) => self.default(statement),
            other if keywords::GLOBAL_SCHEDULING.contains(&other) => self.scheduling(statement),
            other if keywords::GLOBAL_FOR_OTHERS.contains(&other) => {}
            other if keywords::GLOBAL_UNUSED.contains(&other) => self.unused(&statement.keyword),
            _ => self.unknown(&statement.keyword, keywords::global()),
        }
    }

    fn framed(&mut self, statement: &Statement) -> Option<Framed> {
        let command = self.command(statement)?;
        Some(Framed { command, limit: FRAMED_LIMIT })
    }

    fn framed_limit(&mut self, statement: &Statement) {
        let Some(seconds) = self.number(statement, 1..=1000, "10 s is used") else { return };
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let global = &mut self.config.global;
        let framed = match statement.keyword.text.starts_with("startup") {
            true => &mut global.startup,
            false => &mut global.shutdown,
        };
        match framed {
            Some(framed) => framed.limit = limit,
            None => {
                let message = "there is no script before it, ignored";
                self.warn("limit-without-script", &statement.keyword.span, message);
            }
        }
    }

    fn fifo_handler(&mut self, statement: &Statement) {
        let handler = self.command(statement);
        match self.config.global.fifos.last_mut() {
            Some(fifo) => fifo.handler = handler,
            None => {
                let message = "there is no pipe before it, ignored";
                self.warn("handler-without-pipe", &statement.keyword.span, message);
            }
        }
    }

    fn default(&mut self, statement: &Statement) {
        let span = &statement.keyword.span;
        match statement.keyword.text.as_str() {
            "vrrp_strict" => {
                self.defaults.is_strict = self.flag(statement);
                if self.defaults.is_strict {
                    self.warn_strict(span);
                }
            }
            "vrrp_skip_check_adv_addr" => self.defaults.skips_list_check = self.flag(statement),
            "vrrp_check_unicast_src" => self.defaults.checks_source = self.flag(statement),
            "vrrp_lower_prio_no_advert" => self.defaults.answers_lower = !self.flag(statement),
            "vrrp_higher_prio_send_advert" => {
                self.defaults.adverts_before_yielding = self.flag(statement);
            }
            "vrrp_down_timer_adverts" => {
                let number = self.small(statement, 1..=100, "3 is used");
                self.defaults.down_adverts = number.unwrap_or(3);
            }
            "vrrp_mcast_group4" => self.defaults.group_v4 = self.group_address(statement, true),
            "vrrp_mcast_group6" => self.defaults.group_v6 = self.group_address(statement, false),
            "default_interface" => {
                self.defaults.interface = statement.arguments.first().map(|word| word.text.clone());
            }
            _ => {}
        }
    }

    /// What `vrrp_strict` and `strict_mode` mean to whoever copied them from somewhere.
    pub(super) fn warn_strict(&mut self, span: &std::ops::Range<usize>) {
        let message = "keepalived drops what is sent to the virtual addresses in strict mode; here \
                       they can be reached";
        self.advise("strict-mode", span, message, "remove it, or write accept in each router");
    }

    fn group_address(&mut self, statement: &Statement, is_v4: bool) -> Option<IpAddr> {
        let word = statement.arguments.first()?;
        let address = self.address(word)?;
        if address.is_multicast() && address.is_ipv4() == is_v4 {
            return Some(address);
        }
        self.warn("not-a-group", &word.span, "it is no multicast address, ignored");
        None
    }

    fn scheduling(&mut self, statement: &Statement) {
        match statement.keyword.text.as_str() {
            "vrrp_rt_priority" => {
                let number = self.small(statement, 1..=99, "ignored");
                self.config.global.scheduling.realtime = number;
            }
            "vrrp_priority" => {
                let number = self.number(statement, -20..=19, "ignored");
                let number = number.and_then(|number| i8::try_from(number).ok());
                self.config.global.scheduling.nice = number;
            }
            "vrrp_rlimit_rttime" => {
                let micros = self.number(statement, 1..=i64::from(u32::MAX), "ignored");
                let micros = micros.and_then(|micros| u64::try_from(micros).ok());
                self.config.global.scheduling.runtime_max = micros.map(Duration::from_micros);
            }
            "vrrp_no_swap" => self.config.global.scheduling.is_locked = self.flag(statement),
            _ => {}
        }
    }

    /// Reads one of the keywords about announcements, without the prefix of the global ones.
    pub(super) fn announcing(
        &mut self,
        statement: &Statement,
        keyword: &str,
        announcing: &mut Announcing,
    ) {
        // keepalived counts seconds here; fractions do no harm.
        match keyword {
            "garp_master_delay" => {
                announcing.delay = self.time(statement, SECONDS_MAX).unwrap_or(announcing.delay);
            }
            "garp_master_repeat" => {
                let copies = self.small(statement, 1..=255, "ignored");
                announcing.repeat = copies.unwrap_or(announcing.repeat);
            }
            "garp_master_refresh" => {
                let time = self.time(statement, SECONDS_MAX);
                announcing.refresh = time.unwrap_or(announcing.refresh);
            }
            "garp_master_refresh_repeat" => {
                let copies = self.small(statement, 1..=255, "ignored");
                announcing.refresh_repeat = copies.unwrap_or(announcing.refresh_repeat);
            }
            "garp_lower_prio_delay" => {
                announcing.lower_delay = self.time(statement, SECONDS_MAX);
            }
            "garp_lower_prio_repeat" => {
                announcing.lower_repeat = self.small(statement, 0..=255, "ignored");
            }
            "garp_interval" => {
                announcing.arp_gap = self.time(statement, 1).unwrap_or_default();
            }
            "gna_interval" => {
                announcing.neighbour_gap = self.time(statement, 1).unwrap_or_default();
            }
            _ => self.unused(&statement.keyword),
        }
    }
}

/// Reads all `global_defs`.
pub(super) fn read(statements: &[Statement], reader: &mut Reader<'_, '_>) {
    for statement in statements.iter().filter(|one| one.keyword.text == "global_defs") {
        for inner in block(statement) {
            reader.global(inner);
        }
    }
}
