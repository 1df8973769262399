//! The figures in Prometheus' text format.
//!
//! Source: the exposition format, version 0.0.4. Names have their unit; counters end in `_total`.

mod families;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

pub use self::families::FAMILIES;
use super::watch::Watched;
use super::{Facts, Reload};
use crate::stats::{
    Class, Counters, ErrorKind, Histogram, LimitKind, MasterFigures, PoolFigures, RouterFigures,
    ServerFigures, ServiceFigures, WorkerFigures,
};

/// The media type.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of the histograms' buckets as powers of two of microseconds: 32 µs to 8.4 s. Counts at
/// these bounds are exact.
const BOUND_POWERS: std::ops::RangeInclusive<u32> = 5..=23;

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises only.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

impl Kind {
    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, with the unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, with commas between.
    pub labels: &'static str,
    /// What it says, in words.
    pub help: &'static str,
    source: Source,
}

/// Where a family's values come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Process(fn(&Gathered<'_>, &mut Samples<'_>)),
    /// Of each master, behind its name and address.
    Master(fn(&MasterFigures) -> u64),
    Pool(fn(&PoolFigures) -> u64),
    PoolErrors,
    PoolLimits,
    PoolClosed,
    Server(fn(&ServerFigures) -> u64),
    ServerClosed,
    /// In two states: not sent yet, sent and not answered.
    ServerQueue(fn(&ServerFigures) -> [u64; 2]),
    ServerEjectedAt,
    Durations,
}

/// All that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// What does not change.
    pub facts: &'a Facts,
    /// How the configuration was read the last time.
    pub reload: Reload,
    /// Workers that should answer.
    pub workers_due: u16,
    /// What those say that did.
    pub workers: &'a [Arc<WorkerFigures>],
    /// Their pools, added up.
    pub pools: &'a [PoolFigures],
    /// What is known of shards' masters.
    pub watched: &'a Watched,
    /// The virtual routers.
    pub routers: &'a [RouterFigures],
    /// Virtual servers that are relayed.
    pub balance: &'a [ServiceFigures],
}

impl Gathered<'_> {
    /// Returns the masters that are watched.
    fn masters(&self) -> &[MasterFigures] {
        self.watched.figures.as_ref().map_or(&[], |figures| figures.masters.as_slice())
    }
}

/// Writes everything.
pub fn render(all: &Gathered<'_>) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for family in FAMILIES {
        // Writing to a String can't fail.
        let _ = write!(
            out,
            "# HELP {name} {}\n# TYPE {name} {}\n",
            family.help,
            family.kind.name(),
            name = family.name
        );
        family.source.write(all, &mut Samples { name: family.name, out: &mut out });
    }
    out
}

impl Source {
    fn write(self, all: &Gathered<'_>, out: &mut Samples<'_>) {
        match self {
            Self::Process(write) => write(all, out),
            Self::Master(value) => {
                for of in all.masters() {
                    let labels = [("master_name", &*of.name), ("master_address", &*of.address)];
                    out.add(&labels, value(of));
                }
            }
            Self::Pool(_) | Self::PoolErrors | Self::PoolLimits | Self::PoolClosed => {
                all.pools.iter().for_each(|pool| self.write_pool(pool, out));
            }
            Self::Server(_)
            | Self::ServerClosed
            | Self::ServerQueue(_)
            | Self::ServerEjectedAt
            | Self::Durations => {
                for pool in all.pools {
                    pool.servers.iter().for_each(|of| self.write_server(&pool.name, of, out));
                }
            }
        }
    }

    fn write_pool(self, of: &PoolFigures, out: &mut Samples<'_>) {
        let pool = ("pool", &*of.name);
        match self {
            Self::Pool(value) => out.add(&[pool], value(of)),
            Self::PoolErrors => {
                out.add_kinds(pool, "kind", ErrorKind::ALL.map(ErrorKind::name), &of.stats.errors);
            }
            Self::PoolLimits => {
                out.add_kinds(pool, "limit", LimitKind::ALL.map(LimitKind::name), &of.stats.limits);
            }
            Self::PoolClosed => {
                out.add(&[pool, ("how", "eof")], of.stats.client_eof);
                out.add(&[pool, ("how", "error")], of.stats.client_err);
            }
            Self::Process(_)
            | Self::Master(_)
            | Self::Server(_)
            | Self::ServerClosed
            | Self::ServerQueue(_)
            | Self::ServerEjectedAt
            | Self::Durations => {}
        }
    }

    fn write_server(self, pool: &str, of: &ServerFigures, out: &mut Samples<'_>) {
        let (pool, server) = (("pool", pool), ("server", &*of.name));
        match self {
            Self::Server(value) => out.add(&[pool, server], value(of)),
            Self::ServerClosed => {
                out.add(&[pool, server, ("how", "eof")], of.stats.server_eof);
                out.add(&[pool, server, ("how", "error")], of.stats.server_err);
            }
            Self::ServerQueue(value) => {
                let [unsent, unanswered] = value(of);
                out.add(&[pool, server, ("state", "unsent")], unsent);
                out.add(&[pool, server, ("state", "unanswered")], unanswered);
            }
            Self::ServerEjectedAt => {
                out.add_time(&[pool, server], Duration::from_micros(of.stats.server_ejected_at));
            }
            Self::Durations => {
                let durations = of.stats.durations.iter().flat_map(|all| all.iter());
                for (class, times) in Class::ALL.iter().zip(durations) {
                    if times.count() > 0 {
                        out.add_histogram(&[pool, server, ("class", class.name())], times);
                    }
                }
            }
            Self::Process(_)
            | Self::Master(_)
            | Self::Pool(_)
            | Self::PoolErrors
            | Self::PoolLimits
            | Self::PoolClosed => {}
        }
    }
}

/// Where the samples of one family go.
struct Samples<'a> {
    name: &'static str,
    out: &'a mut String,
}

/// A label's name and value.
type Label<'a> = (&'static str, &'a str);

impl Samples<'_> {
    fn add(&mut self, labels: &[Label<'_>], value: u64) {
        self.head("", labels, None);
        let _ = writeln!(self.out, " {value}");
    }

    fn add_time(&mut self, labels: &[Label<'_>], time: Duration) {
        self.head("", labels, None);
        self.out.push(' ');
        self.seconds(time);
        self.out.push('\n');
    }

    fn add_kinds<const N: usize>(
        &mut self,
        pool: Label<'_>,
        label: &'static str,
        names: [&'static str; N],
        counters: &Counters<N>,
    ) {
        for (name, value) in names.iter().zip(counters.all()) {
            self.add(&[pool, (label, name)], *value);
        }
    }

    fn add_histogram(&mut self, labels: &[Label<'_>], times: &Histogram) {
        for power in BOUND_POWERS {
            let bound = Duration::from_micros(1 << power);
            self.head("_bucket", labels, Some(bound));
            let _ = writeln!(self.out, " {}", times.count_within(bound));
        }
        self.head("_bucket", labels, Some(Duration::MAX));
        let _ = writeln!(self.out, " {}", times.count());
        self.head("_sum", labels, None);
        self.out.push(' ');
        self.seconds(times.sum());
        self.out.push('\n');
        self.head("_count", labels, None);
        let _ = writeln!(self.out, " {}", times.count());
    }

    /// Writes a sample up to its value. `bound` is that of a bucket; the longest time is none.
    fn head(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<Duration>) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        if labels.is_empty() && bound.is_none() {
            return;
        }
        self.out.push('{');
        for (name, value) in labels {
            let _ = write!(self.out, "{name}=\"");
            escape(self.out, value);
            self.out.push_str("\",");
        }
        if let Some(bound) = bound {
            self.out.push_str("le=\"");
            if bound == Duration::MAX {
                self.out.push_str("+Inf");
            } else {
                self.seconds(bound);
            }
            self.out.push_str("\",");
        }
        self.out.pop();
        self.out.push('}');
    }

    fn seconds(&mut self, time: Duration) {
        let _ = write!(self.out, "{}.{:06}", time.as_secs(), time.subsec_micros());
    }
}

/// Appends a label's value.
fn escape(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            plain => out.push(plain),
        }
    }
}
