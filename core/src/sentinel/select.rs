//! Which replica becomes the master.

use std::cmp::Reverse;
use std::time::Duration;

use super::info::{Info, MasterLink, ReplicaReport, RoleReport};
use super::instance::{Address, RunId};
use crate::time::Instant;

/// What is known of one replica.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// The run of its process, none before its first INFO.
    pub run_id: Option<RunId>,
    /// Whether it is down, in whatever sense.
    pub is_down: bool,
    /// Whether our connection to it stands.
    pub is_connected: bool,
    /// When it last answered a PING as it should.
    pub last_pong: Option<Instant>,
    /// Its last INFO and when it came.
    pub report: Option<(Instant, &'a Info)>,
}

/// What the rule depends on besides the replicas.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// How long the master has been subjectively down; none while it is up, in a planned
    /// fail-over.
    pub master_down_for: Option<Duration>,
    /// The master's down-after.
    pub down_after: Duration,
    /// The PING period.
    pub ping_period: Duration,
    /// The INFO period of healthy servers.
    pub info_period: Duration,
    /// The history that the last master had, as far as anybody remembers it.
    pub lineage: Option<RunId>,
    /// Whether a replica of another history may be chosen when there is no other: it loses
    /// whatever it does not have.
    pub allows_stale: bool,
    /// What a replica must have at least, bytes: with a promise of copies, what the furthest has.
    pub offset_min: u64,
}

/// Why a replica is not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Down.
    Down,
    /// No connection to it.
    Disconnected,
    /// It has not answered for too long.
    NoPong,
    /// No INFO of it, or none that is fresh.
    NoInfo,
    /// It says that it is a master: a former one that comes back, whose writes nobody has.
    SaysMaster,
    /// Its priority is 0.
    Priority,
    /// It lost its master long before we did.
    LinkDownTooLong,
    /// It has never been in step with its master.
    NeverSynced,
    /// Its history is not that of the last master, so its offset compares with nothing.
    Lineage,
    /// Another has more, and copies were promised.
    Behind,
    /// Copies were promised, and fewer replicas are seen than it takes to find one.
    TooFewSeen,
}

/// What the rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The position of the chosen replica; none when all are unfit.
    pub chosen: Option<usize>,
    /// Whether it is of another history than the last master.
    pub is_stale: bool,
    /// Why the others are not chosen, by position; for whoever asks why nothing happens.
    pub unfit: Vec<(usize, Unfit)>,
}

/// Chooses a replica: of the fit ones the lowest priority, then the most of the history, then the
/// first run ID in any case, replicas without one last.
///
/// Deviates: genuine Sentinels also take a replica that says it is a master, and one that was
/// never in step, and do not look at the history.
pub fn select(now: Instant, candidates: &[Candidate<'_>], rule: &Rule) -> Selection {
    let mut unfit = Vec::new();
    let mut fit = Vec::new();
    let mut stale = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        match judge(now, candidate, rule) {
            Ok(report) => {
                let history = candidate.report.map(|(_, report)| report.history);
                let is_ours = match (rule.lineage, history) {
                    (Some(lineage), Some(history)) => history.includes(lineage),
                    (None, _) => true,
                    (Some(_), None) => false,
                };
                let rank = rank(candidate, report);
                if is_ours { fit.push((rank, at)) } else { stale.push((rank, at)) }
            }
            Err(why) => unfit.push((at, why)),
        }
    }
    let best = |list: &[(Rank, usize)]| list.iter().min().map(|(_, at)| *at);
    let first = best(&fit);
    let chosen = first.or_else(|| best(&stale).filter(|_| rule.allows_stale));
    let others = stale.iter().map(|(_, at)| *at).filter(|at| Some(*at) != chosen);
    unfit.extend(others.map(|at| (at, Unfit::Lineage)));
    unfit.sort_unstable();
    Selection { chosen, is_stale: chosen.is_some() && first.is_none(), unfit }
}

type Rank = (u32, Reverse<u64>, bool, Option<String>);

fn rank(candidate: &Candidate<'_>, report: &ReplicaReport) -> Rank {
    let run_id = candidate.run_id.map(|id| id.as_str().to_ascii_lowercase());
    (report.priority, Reverse(report.offset), run_id.is_none(), run_id)
}

fn judge<'a>(
    now: Instant,
    candidate: &Candidate<'a>,
    rule: &Rule,
) -> Result<&'a ReplicaReport, Unfit> {
    let Candidate { is_down, is_connected, last_pong, report, .. } = candidate;
    if *is_down {
        return Err(Unfit::Down);
    }
    if !is_connected {
        return Err(Unfit::Disconnected);
    }
    let is_older = |at: Instant, most: Duration| now.since(at) > most;
    if last_pong.is_none_or(|at| is_older(at, rule.ping_period * 5)) {
        return Err(Unfit::NoPong);
    }
    // While the master is down its replicas are asked every PING period.
    let info_age_max = match rule.master_down_for {
        Some(_) => rule.ping_period * 5,
        None => rule.info_period * 3,
    };
    let (_, report) = report.filter(|(at, _)| !is_older(*at, info_age_max)).ok_or(Unfit::NoInfo)?;
    let RoleReport::Replica(replica) = &report.role else {
        return Err(Unfit::SaysMaster);
    };
    if replica.priority == 0 {
        return Err(Unfit::Priority);
    }
    if replica.offset < rule.offset_min {
        return Err(Unfit::Behind);
    }
    let down_max = rule.master_down_for.unwrap_or_default() + rule.down_after * 10;
    match replica.link {
        MasterLink::Up => {}
        MasterLink::Down(since) if since <= down_max => {}
        MasterLink::Down(_) => return Err(Unfit::LinkDownTooLong),
        MasterLink::NeverUp => return Err(Unfit::NeverSynced),
    }
    Ok(replica)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sentinel::info::History;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn id(digit: u8) -> RunId {
        RunId::parse(&[digit; 40]).unwrap()
    }

    fn info(priority: u32, offset: u64, link: MasterLink) -> Info {
        Info {
            run_id: None,
            is_loading: false,
            role: RoleReport::Replica(ReplicaReport {
                master: None,
                link,
                priority,
                offset,
                is_announced: true,
            }),
            history: History { replid: Some(id(b'a')), ..History::default() },
        }
    }

    fn rule() -> Rule {
        Rule {
            master_down_for: Some(Duration::from_secs(1)),
            down_after: Duration::from_secs(1),
            ping_period: Duration::from_secs(1),
            info_period: Duration::from_secs(10),
            lineage: Some(id(b'a')),
            allows_stale: false,
            offset_min: 0,
        }
    }

    fn candidate<'a>(address: &'a Address, run: u8, info: &'a Info) -> Candidate<'a> {
        Candidate {
            address,
            run_id: Some(id(run)),
            is_down: false,
            is_connected: true,
            last_pong: Some(NOW),
            report: Some((NOW, info)),
        }
    }

    fn address() -> Address {
        Address::new("h", 1).unwrap()
    }

    #[test]
    fn priority_then_offset_then_run_id_decide() {
        let address = address();
        let infos = [(100, 9), (10, 5), (10, 7), (10, 7)].map(|(p, o)| info(p, o, MasterLink::Up));
        let runs = [b'1', b'2', b'C', b'b'];
        let all: Vec<_> =
            infos.iter().zip(runs).map(|(info, run)| candidate(&address, run, info)).collect();
        let select = |list: &[Candidate<'_>]| select(NOW, list, &rule()).chosen;
        assert_eq!(select(&all), Some(3));
        assert_eq!(select(&all[..3]), Some(2));
        assert_eq!(select(&all[..2]), Some(1));
        assert_eq!(select(&all[..1]), Some(0));
        let nameless = Candidate { run_id: None, ..all[3].clone() };
        assert_eq!(select(&[nameless, all[2].clone()]), Some(1));
        assert_eq!(select(&[]), None);
    }

    #[test]
    fn every_exclusion_has_its_reason() {
        let address = address();
        let good = info(100, 1, MasterLink::Up);
        let fit = candidate(&address, b'1', &good);
        let old = |seconds: u64| Instant::from_nanos(NOW.as_nanos() - seconds * 1_000_000_000);
        let master = Info {
            role: RoleReport::Master { replicas: Vec::new(), replicas_dropped: 0 },
            ..good.clone()
        };
        let never = info(0, 1, MasterLink::Up);
        let long = info(1, 1, MasterLink::Down(Duration::from_secs(12)));
        let just = info(1, 1, MasterLink::Down(Duration::from_secs(11)));
        let unsynced = info(1, 1, MasterLink::NeverUp);
        let stranger = Info {
            history: History { replid: Some(id(b'b')), ..History::default() },
            ..good.clone()
        };
        let list = [
            Candidate { is_down: true, ..fit.clone() },
            Candidate { is_connected: false, ..fit.clone() },
            Candidate { last_pong: Some(old(6)), ..fit.clone() },
            Candidate { report: Some((old(6), &good)), ..fit.clone() },
            Candidate { report: None, ..fit.clone() },
            candidate(&address, b'1', &master),
            candidate(&address, b'1', &never),
            candidate(&address, b'1', &long),
            candidate(&address, b'1', &unsynced),
            candidate(&address, b'1', &stranger),
            candidate(&address, b'9', &just),
        ];
        let selection = select(NOW, &list, &rule());
        assert_eq!(selection.chosen, Some(10));
        let reasons: Vec<Unfit> = selection.unfit.iter().map(|(_, why)| *why).collect();
        let expected = [
            Unfit::Down,
            Unfit::Disconnected,
            Unfit::NoPong,
            Unfit::NoInfo,
            Unfit::NoInfo,
            Unfit::SaysMaster,
            Unfit::Priority,
            Unfit::LinkDownTooLong,
            Unfit::NeverSynced,
            Unfit::Lineage,
        ];
        assert_eq!(reasons, expected);
        // In a planned fail-over INFO is rarer, so an older one counts.
        let planned = Rule { master_down_for: None, ..rule() };
        assert!(!select(NOW, &list, &planned).unfit.contains(&(3, Unfit::NoInfo)));
    }

    #[test]
    fn another_history_is_taken_only_if_allowed_and_last() {
        let address = address();
        let ours = info(100, 1, MasterLink::Up);
        let mut stranger = info(1, 99, MasterLink::Up);
        stranger.history.replid = Some(id(b'b'));
        let mut former = stranger.clone();
        former.history.replid2 = Some(id(b'a'));
        let list = [candidate(&address, b'1', &stranger), candidate(&address, b'2', &ours)];
        let allowed = Rule { allows_stale: true, ..rule() };
        assert_eq!(select(NOW, &list, &allowed).chosen, Some(1));
        assert_eq!(select(NOW, &list[..1], &rule()).chosen, None);
        let last_resort = select(NOW, &list[..1], &allowed);
        assert_eq!((last_resort.chosen, last_resort.is_stale), (Some(0), true));
        let heir = [candidate(&address, b'3', &former)];
        assert_eq!(select(NOW, &heir, &rule()).chosen, Some(0));
        // Nobody remembers a history: then it cannot decide.
        let forgotten = Rule { lineage: None, ..rule() };
        assert_eq!(select(NOW, &list, &forgotten).chosen, Some(0));
    }

    proptest! {
        #[test]
        fn the_order_of_the_replicas_does_not_matter(
            list in proptest::collection::vec((0..3_u32, 0..3_u64, b'0'..=b'9'), 1..6),
        ) {
            let address = address();
            let infos: Vec<Info> = list.iter().map(|(p, o, _)| info(*p, *o, MasterLink::Up)).collect();
            let mut all: Vec<_> =
                infos.iter().zip(&list).map(|(info, (.., run))| candidate(&address, *run, info)).collect();
            let key = |all: &[Candidate<'_>]| {
                let chosen = all[select(NOW, all, &rule()).chosen?].clone();
                Some((chosen.run_id, chosen.report.map(|(_, info)| info.role.clone())))
            };
            let forward = key(&all);
            all.reverse();
            prop_assert_eq!(key(&all), forward);
        }
    }
}
