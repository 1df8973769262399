//! `ringkeeper lab`: a deployment to try things on.
#![cfg(target_os = "linux")]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::host;
use crate::host::runtime::Choice;
use crate::lab::{self, Event, Mode, NetworkChoice, Options, Peer, Recipe};

/// What stands below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  ringkeeper lab
  ringkeeper lab --auto --json result.json
  ringkeeper lab --auto --only plan,kill-master --rounds 10
  ringkeeper lab --chaos 60 --seed 7
  ringkeeper lab --chaos 60 --genuine sentinel,keepalived
  ringkeeper lab --auto --only kill-master --rounds 20 --replicated 1
  ringkeeper lab --auto --glued

Keys: k kill a master, n kill a node, c cut a network, p plan a failover, r reload, u upgrade, q quit.
It needs redis-server, and for a network of its own iproute2, iptables and the right to make
namespaces, which most systems give to everybody. It ends with everything that it has started.

Exit codes:
  0  all that happened has healed
  1  it has not, or something is missing";

/// The command's options.
#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// Have every event happen once, without asking
    #[arg(long, conflicts_with = "chaos")]
    auto: bool,
    /// With --auto: only these events, in this order
    #[arg(long, value_enum, value_name = "EVENT,...", value_delimiter = ',', requires = "auto")]
    only: Vec<Event>,
    /// With --auto: all of it so often
    #[arg(long, value_name = "N", default_value_t = 1, requires = "auto")]
    rounds: u32,
    /// Break things by lot for so many seconds
    #[arg(long, value_name = "SECONDS")]
    chaos: Option<u64>,
    /// What --chaos follows from [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the result here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where files are while it runs; whatever else is there goes away
    #[arg(long, value_name = "FOLDER", default_value = "target/lab")]
    folder: PathBuf,
    /// Leave the files when all has healed, too
    #[arg(long)]
    keep: bool,
    /// What drives the nodes' sockets
    #[arg(long, value_enum, default_value_t)]
    runtime: Choice,
    /// Genuine programs that the third node runs in place of ours
    #[arg(long, value_enum, value_name = "PEER,...", value_delimiter = ',')]
    genuine: Vec<Peer>,
    /// Every node runs nutcracker, redis-sentinel, keepalived and a script in place of ringkeeper
    #[arg(long, conflicts_with_all = ["genuine", "replicated", "no_fast_down"])]
    glued: bool,
    /// On how many replicas a write is before it is acknowledged, 1 or 2
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=2))]
    replicated: Option<u32>,
    /// How long a silent master is believed to live, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    down_after: u64,
    /// A refused connection is not enough to replace a master
    #[arg(long)]
    no_fast_down: bool,
    /// From one announcement of the shared address to the next, milliseconds, whole hundredths of a second
    #[arg(long, value_name = "MS", default_value_t = 100)]
    advert: u64,
    /// Which network
    #[arg(long, value_enum, default_value_t)]
    network: NetworkChoice,
    /// First of three ports of 127.0.0.1 that lead inside, 0 for any [default: 16379, or any]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Descriptors of sockets that listen outside.
    #[arg(long, hide = true, value_delimiter = ',')]
    inside: Option<Vec<i32>>,
}

/// Runs it.
pub(super) fn main(arguments: LabArgs) -> ExitCode {
    let LabArgs { auto, only, rounds, chaos, seed, json, folder, keep, .. } = arguments;
    let LabArgs { runtime, genuine, network, port, inside, glued, .. } = arguments;
    let LabArgs { replicated, down_after, no_fast_down, advert, .. } = arguments;
    let mode = match (auto, chaos) {
        (true, _) if only.is_empty() => Mode::Auto { events: Event::ALL.to_vec(), rounds },
        (true, _) => Mode::Auto { events: only, rounds },
        (false, Some(seconds)) => Mode::Chaos {
            length: Duration::from_secs(seconds),
            seed: seed.unwrap_or_else(|| host::seed().unwrap_or_default()),
        },
        (false, None) => Mode::Keys,
    };
    lab::run(&Options {
        mode,
        json,
        folder,
        keeps_files: keep,
        recipe: Recipe {
            runtime,
            peers: genuine,
            is_glued: glued,
            replicated: replicated.and_then(NonZeroU32::new),
            down_after: Duration::from_millis(down_after),
            has_fast_down: !no_fast_down,
            advert: Duration::from_millis(advert),
        },
        network,
        port,
        inside,
    })
}
