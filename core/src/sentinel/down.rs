//! Whether an instance is down: for us alone, and for enough of us.

use std::collections::BTreeMap;
use std::time::Duration;

use super::info::History;
use super::instance::{Address, Epoch, Kind, Role, RunId};
use crate::limits;
use crate::time::Instant;

/// What a reply to PING says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// `PONG`: it serves.
    Serving,
    /// `LOADING` or `MASTERDOWN`: it is alive.
    Alive,
    /// `BUSY`: a script blocks it.
    Busy,
    /// Anything else, such as a password that is wanted: the process is there, but of no use.
    Refused,
}

impl Pong {
    /// Reads a whole frame.
    pub fn of(frame: &[u8]) -> Self {
        let Some((b'+' | b'-', text)) = frame.split_first() else { return Self::Refused };
        if text.starts_with(b"PONG") {
            Self::Serving
        } else if text.starts_with(b"LOADING") || text.starts_with(b"MASTERDOWN") {
            Self::Alive
        } else if text.starts_with(b"BUSY") {
            Self::Busy
        } else {
            Self::Refused
        }
    }

    /// Whether an instance that answers so is not down.
    pub const fn is_acceptable(self) -> bool {
        match self {
            Self::Serving | Self::Alive => true,
            Self::Busy | Self::Refused => false,
        }
    }
}

/// What makes an instance count as down.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silence after which it is down.
    pub down_after: Duration,
    /// How much longer a master may say that it is a replica: two INFO periods.
    pub role_grace: Duration,
    /// How long a master that restarted may take to serve; none is no bound.
    pub reboot_down_after: Option<Duration>,
    /// How long connecting anew may take before silence counts.
    pub connect_grace: Duration,
}

/// Why an instance is subjectively down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has not answered acceptably for too long.
    Silent,
    /// It is believed to be the master and says that it is a replica.
    SaysReplica,
    /// It restarted and has not served since.
    Rebooted,
}

/// A change of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It went down.
    Down(Why),
    /// It came up.
    Up,
}

/// What a restart did to a server's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// The history is the same, or nothing tells that it is not.
    Kept,
    /// It has another history and less of it than a replica has of the old one. If it goes on as
    /// the master, the replicas will drop what they have.
    Lost,
}

/// Watches one instance: its answers in, whether it is subjectively down out.
#[derive(Clone, Debug)]
pub struct Watch {
    kind: Kind,
    patience: Patience,
    is_connected: bool,
    /// The first PING that has not been answered acceptably. After a restart of the watch it may
    /// lie in the future, until which silence does not count.
    waiting_since: Option<Instant>,
    last_acceptable: Instant,
    has_answered: bool,
    run_id: Option<RunId>,
    history: History,
    role: Role,
    role_since: Instant,
    rebooted_at: Option<Instant>,
    down_since: Option<Instant>,
}

impl Watch {
    /// Begins to watch: an instance that never answers is down in the end.
    pub fn new(now: Instant, kind: Kind, patience: Patience) -> Self {
        Self {
            kind,
            patience,
            is_connected: false,
            waiting_since: Some(now + patience.connect_grace),
            last_acceptable: now,
            has_answered: false,
            run_id: None,
            history: History::default(),
            role: if kind == Kind::Master { Role::Master } else { Role::Replica },
            role_since: now,
            rebooted_at: None,
            down_since: None,
        }
    }

    /// Changes what counts as down, such as by `SENTINEL SET`.
    pub const fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Takes in that the connection for commands stands. Silence counts from here.
    pub fn handle_connected(&mut self, now: Instant) {
        self.is_connected = true;
        // After a switch to another address nothing was owed before it could be asked.
        if self.waiting_since.is_none_or(|since| since > now) {
            self.waiting_since = Some(now);
        }
    }

    /// Takes in that the connection for commands is gone, and with it every reply.
    pub const fn handle_disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Takes in that a PING left.
    pub fn handle_ping_sent(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Takes in the reply to a PING.
    pub fn handle_pong(&mut self, now: Instant, pong: Pong) {
        if !pong.is_acceptable() {
            return;
        }
        self.waiting_since = None;
        self.last_acceptable = now;
        self.has_answered = true;
        if pong == Pong::Serving {
            self.rebooted_at = None;
        }
    }

    /// Takes in what INFO says of the role. Returns whether it is another than before.
    pub fn handle_role(&mut self, now: Instant, role: Role) -> bool {
        let is_new = role != self.role;
        if is_new {
            self.role = role;
            self.role_since = now;
        }
        is_new
    }

    /// Takes in which run of the process INFO is from, and its data. Returns what the restart did
    /// if it is another run than before.
    ///
    /// `best_replica` is the furthest of its replicas.
    pub fn handle_run(
        &mut self,
        now: Instant,
        run_id: RunId,
        history: History,
        best_replica: Option<History>,
    ) -> Option<Reboot> {
        let before = self.run_id.replace(run_id);
        let old = std::mem::replace(&mut self.history, history);
        if before.is_none_or(|before| before == run_id) {
            return None;
        }
        if self.kind == Kind::Master && self.patience.reboot_down_after.is_some() {
            self.rebooted_at = Some(now);
        }
        let is_lost = old.replid.is_some_and(|replid| {
            !history.includes(replid)
                && best_replica
                    .is_some_and(|best| best.includes(replid) && best.offset > history.offset)
        });
        Some(if is_lost { Reboot::Lost } else { Reboot::Kept })
    }

    /// Takes in that the process did not run for a while: silence until then says nothing, and a
    /// fresh PING has to go unanswered before the instance is down.
    pub fn handle_stall(&mut self, now: Instant) {
        if self.down_since.is_none() {
            self.waiting_since = self.waiting_since.map(|_| now);
            self.last_acceptable = now;
        }
    }

    /// Judges. Not to be called in TILT.
    pub fn evaluate(&mut self, now: Instant) -> Option<Edge> {
        match (self.why_down(now), self.down_since) {
            (Some(why), None) => {
                self.down_since = Some(now);
                Some(Edge::Down(why))
            }
            (None, Some(_)) => {
                self.down_since = None;
                Some(Edge::Up)
            }
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    fn why_down(&self, now: Instant) -> Option<Why> {
        let Patience { down_after, role_grace, reboot_down_after, .. } = self.patience;
        let silence = match self.waiting_since {
            Some(since) => now.since(since),
            None if !self.is_connected => now.since(self.last_acceptable),
            None => Duration::ZERO,
        };
        if silence > down_after {
            return Some(Why::Silent);
        }
        if self.kind == Kind::Master
            && self.role == Role::Replica
            && now.since(self.role_since) > down_after + role_grace
        {
            return Some(Why::SaysReplica);
        }
        let most = reboot_down_after?;
        self.rebooted_at.filter(|at| now.since(*at) > most).map(|_| Why::Rebooted)
    }

    /// Returns when [`evaluate`](Self::evaluate) can find it down if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        // The verdict is "longer than", so it takes a moment more.
        let moment = Duration::from_nanos(1);
        let unreached_since = (!self.is_connected).then_some(self.last_acceptable);
        let silent_since = self.waiting_since.or(unreached_since);
        let silent = silent_since.map(|since| since + self.patience.down_after + moment);
        let role = (self.kind == Kind::Master && self.role == Role::Replica).then(|| {
            self.role_since + self.patience.down_after + self.patience.role_grace + moment
        });
        let reboot = self.rebooted_at.zip(self.patience.reboot_down_after);
        let reboot = reboot.map(|(at, most)| at + most + moment);
        [silent, role, reboot].into_iter().flatten().min().filter(|_| self.down_since.is_none())
    }

    /// Whether it is subjectively down.
    pub const fn is_down(&self) -> bool {
        self.down_since.is_some()
    }

    /// Returns since when.
    pub const fn down_since(&self) -> Option<Instant> {
        self.down_since
    }

    /// Whether it answered within the last `within`: then nobody's suspicion convinces us.
    pub fn is_alive_within(&self, now: Instant, within: Duration) -> bool {
        self.has_answered && now.since(self.last_acceptable) < within
    }
}

/// What peers say about one master at one address. Answers about another address, or from before
/// the last switch, do not count.
#[derive(Clone, Debug)]
pub struct Agreement {
    address: Address,
    config_epoch: Epoch,
    answers: BTreeMap<RunId, Confirmation>,
    /// Answers to questions from before this suspicion began say nothing about it.
    since: Instant,
    is_down: bool,
}

#[derive(Clone, Copy, Debug)]
struct Confirmation {
    at: Instant,
    is_down: bool,
}

/// What a peer was asked about, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where the master was.
    pub address: Address,
    /// Since which election.
    pub config_epoch: Epoch,
    /// When the question left.
    pub at: Instant,
}

/// How many see the master down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Those who do, we among them.
    pub agree: usize,
    /// Those who have to.
    pub quorum: u32,
}

/// A change of the common verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonEdge {
    /// Enough see it down.
    Down(Tally),
    /// Not any more.
    Up,
}

impl Agreement {
    /// Begins without an answer.
    pub const fn new(address: Address, config_epoch: Epoch) -> Self {
        Self {
            address,
            config_epoch,
            answers: BTreeMap::new(),
            since: Instant::START,
            is_down: false,
        }
    }

    /// Takes in where the master is; every answer is forgotten if that is news.
    ///
    /// Deviates: genuine Sentinels keep the answers, which then condemn the new master.
    pub fn handle_switch(&mut self, address: &Address, config_epoch: Epoch) {
        if *address != self.address || config_epoch != self.config_epoch {
            *self = Self::new(address.clone(), config_epoch);
        }
    }

    /// Takes in that we began to suspect the master: only what peers are asked from here on counts.
    ///
    /// Deviates: genuine Sentinels count answers that are up to five seconds old, from another
    /// suspicion.
    pub fn handle_suspicion(&mut self, now: Instant) {
        if !self.is_down {
            self.answers.clear();
            self.since = now;
        }
    }

    /// Takes in what a peer answered.
    pub fn handle_answer(&mut self, now: Instant, peer: RunId, asked: &Asked, is_down: bool) {
        let is_about_it = asked.address == self.address
            && asked.config_epoch == self.config_epoch
            && asked.at >= self.since;
        let is_known = self.answers.contains_key(&peer);
        if is_about_it && (is_known || self.answers.len() < limits::PEERS_PER_MASTER_MAX) {
            self.answers.insert(peer, Confirmation { at: now, is_down });
        }
    }

    /// Forgets a peer.
    pub fn forget(&mut self, peer: &RunId) {
        self.answers.remove(peer);
    }

    /// Counts answers of at most this age, and ourselves.
    pub fn tally(&self, now: Instant, age_max: Duration, quorum: u32) -> Tally {
        let fresh = |answer: &&Confirmation| answer.is_down && now.since(answer.at) <= age_max;
        Tally { agree: 1 + self.answers.values().filter(fresh).count(), quorum }
    }

    /// Judges. Not to be called in TILT.
    pub fn evaluate(
        &mut self,
        now: Instant,
        is_subjectively_down: bool,
        age_max: Duration,
        quorum: u32,
    ) -> Option<CommonEdge> {
        let tally = self.tally(now, age_max, quorum);
        let is_enough = u32::try_from(tally.agree).is_ok_and(|agree| agree >= quorum);
        let is_down = is_subjectively_down && is_enough;
        let was_down = std::mem::replace(&mut self.is_down, is_down);
        match (was_down, is_down) {
            (false, true) => Some(CommonEdge::Down(tally)),
            (true, false) => Some(CommonEdge::Up),
            (true, true) | (false, false) => None,
        }
    }

    /// Whether it is objectively down.
    pub const fn is_down(&self) -> bool {
        self.is_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn id(digit: u8) -> RunId {
        RunId::parse(&[digit; 40]).unwrap()
    }

    const PATIENCE: Patience = Patience {
        down_after: Duration::from_millis(1000),
        role_grace: Duration::from_millis(500),
        reboot_down_after: Some(Duration::from_millis(200)),
        connect_grace: Duration::from_millis(100),
    };

    fn connected(now: Instant) -> Watch {
        let mut watch = Watch::new(now, Kind::Master, PATIENCE);
        watch.handle_connected(now);
        watch.handle_pong(now, Pong::Serving);
        watch
    }

    #[test]
    fn an_instance_that_is_never_reached_goes_down_after_the_grace() {
        let mut watch = Watch::new(at(0), Kind::Replica, PATIENCE);
        assert_eq!(watch.evaluate(at(1100)), None);
        assert_eq!(watch.deadline(), Some(at(1100) + Duration::from_nanos(1)));
        assert_eq!(watch.evaluate(at(1101)), Some(Edge::Down(Why::Silent)));
        assert_eq!(watch.evaluate(at(1102)), None);
        watch.handle_connected(at(1200));
        watch.handle_pong(at(1201), Pong::Alive);
        assert_eq!(watch.evaluate(at(1201)), Some(Edge::Up));
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn silence_counts_from_the_first_ping_without_an_acceptable_answer() {
        let mut watch = connected(at(0));
        watch.handle_ping_sent(at(5000));
        watch.handle_ping_sent(at(5500));
        watch.handle_pong(at(5600), Pong::Refused);
        watch.handle_pong(at(5700), Pong::Busy);
        assert_eq!(watch.evaluate(at(6000)), None);
        assert_eq!(watch.evaluate(at(6001)), Some(Edge::Down(Why::Silent)));
    }

    #[test]
    fn a_lost_connection_counts_from_the_last_acceptable_answer() {
        let mut watch = connected(at(0));
        watch.handle_pong(at(300), Pong::Serving);
        watch.handle_disconnected();
        assert_eq!(watch.evaluate(at(1300)), None);
        assert_eq!(watch.evaluate(at(1301)), Some(Edge::Down(Why::Silent)));
    }

    #[test]
    fn a_master_that_says_it_is_a_replica_goes_down() {
        let mut watch = connected(at(0));
        assert!(watch.handle_role(at(100), Role::Replica));
        assert!(!watch.handle_role(at(200), Role::Replica));
        assert_eq!(watch.evaluate(at(1600)), None);
        assert_eq!(watch.evaluate(at(1601)), Some(Edge::Down(Why::SaysReplica)));
        assert!(watch.handle_role(at(1700), Role::Master));
        assert_eq!(watch.evaluate(at(1700)), Some(Edge::Up));
    }

    #[test]
    fn a_master_that_restarted_goes_down_unless_it_serves_in_time() {
        let mut watch = connected(at(0));
        let history = History::default();
        assert_eq!(watch.handle_run(at(0), id(b'1'), history, None), None);
        assert_eq!(watch.handle_run(at(10), id(b'2'), history, None), Some(Reboot::Kept));
        watch.handle_pong(at(20), Pong::Alive);
        assert_eq!(watch.evaluate(at(210)), None);
        assert_eq!(watch.evaluate(at(211)), Some(Edge::Down(Why::Rebooted)));
        watch.handle_pong(at(220), Pong::Serving);
        assert_eq!(watch.evaluate(at(220)), Some(Edge::Up));
    }

    #[test]
    fn a_master_that_comes_back_empty_is_noticed() {
        let with =
            |replid, offset| History { replid: Some(id(replid)), offset, ..History::default() };
        let mut watch = connected(at(0));
        watch.handle_run(at(0), id(b'1'), with(b'a', 100), None);
        let replica = Some(with(b'a', 90));
        assert_eq!(watch.handle_run(at(1), id(b'2'), with(b'b', 0), replica), Some(Reboot::Lost));
        // A reload from disk keeps the old name as the second.
        let kept = History { replid2: Some(id(b'b')), ..with(b'c', 0) };
        assert_eq!(watch.handle_run(at(2), id(b'3'), kept, replica), Some(Reboot::Kept));
    }

    #[test]
    fn after_a_stall_a_fresh_ping_has_to_go_unanswered() {
        let mut watch = connected(at(0));
        watch.handle_ping_sent(at(100));
        watch.handle_stall(at(60_000));
        assert_eq!(watch.evaluate(at(61_000)), None);
        assert_eq!(watch.evaluate(at(61_001)), Some(Edge::Down(Why::Silent)));
    }

    #[test]
    fn replies_to_ping_are_told_apart() {
        assert_eq!(Pong::of(b"+PONG\r\n"), Pong::Serving);
        assert_eq!(Pong::of(b"-LOADING Redis is loading\r\n"), Pong::Alive);
        assert_eq!(Pong::of(b"-MASTERDOWN Link\r\n"), Pong::Alive);
        assert_eq!(Pong::of(b"-BUSY script\r\n"), Pong::Busy);
        for frame in [&b"-NOAUTH\r\n"[..], b"-MISCONF\r\n", b"", b":1\r\n", b"$4\r\nPONG\r\n"] {
            assert_eq!(Pong::of(frame), Pong::Refused);
        }
    }

    const FRESH: Duration = Duration::from_secs(5);

    fn asked(address: &Address, config_epoch: Epoch, ms: u64) -> Asked {
        Asked { address: address.clone(), config_epoch, at: at(ms) }
    }

    #[test]
    fn answers_from_before_a_suspicion_do_not_confirm_it() {
        let address = Address::new("h", 1).unwrap();
        let mut agreement = Agreement::new(address.clone(), Epoch::ZERO);
        let old = asked(&address, Epoch::ZERO, 0);
        agreement.handle_answer(at(1), id(b'1'), &old, true);
        agreement.handle_suspicion(at(2));
        assert_eq!(agreement.evaluate(at(2), true, FRESH, 2), None);
        // This one was on its way.
        agreement.handle_answer(at(3), id(b'1'), &old, true);
        assert_eq!(agreement.evaluate(at(3), true, FRESH, 2), None);
        agreement.handle_answer(at(4), id(b'1'), &asked(&address, Epoch::ZERO, 2), true);
        assert!(matches!(agreement.evaluate(at(4), true, FRESH, 2), Some(CommonEdge::Down(_))));
        // Another reason for what is agreed on already changes nothing.
        agreement.handle_suspicion(at(5));
        assert_eq!(agreement.evaluate(at(5), true, FRESH, 2), None);
        assert!(agreement.is_down());
    }

    #[test]
    fn enough_fresh_answers_about_this_address_make_it_objectively_down() {
        let address = Address::new("h", 1).unwrap();
        let mut agreement = Agreement::new(address.clone(), Epoch::ZERO);
        assert_eq!(agreement.evaluate(at(0), true, FRESH, 2), None);
        agreement.handle_answer(at(0), id(b'1'), &asked(&address, Epoch::ZERO, 0), true);
        let tally = Tally { agree: 2, quorum: 2 };
        assert_eq!(agreement.evaluate(at(5000), true, FRESH, 2), Some(CommonEdge::Down(tally)));
        assert_eq!(agreement.evaluate(at(5001), true, FRESH, 2), Some(CommonEdge::Up));
        assert_eq!(agreement.evaluate(at(4000), false, FRESH, 2), None);
    }

    #[test]
    fn answers_about_the_old_address_do_not_condemn_the_new_master() {
        let old = Address::new("h", 1).unwrap();
        let new = Address::new("h", 2).unwrap();
        let one = Epoch::new(1).unwrap();
        let mut agreement = Agreement::new(old.clone(), Epoch::ZERO);
        agreement.handle_answer(at(0), id(b'1'), &asked(&old, Epoch::ZERO, 0), true);
        agreement.handle_switch(&new, one);
        agreement.handle_answer(at(1), id(b'2'), &asked(&old, Epoch::ZERO, 1), true);
        assert_eq!(agreement.tally(at(1), FRESH, 2).agree, 1);
        agreement.handle_switch(&new, one);
        agreement.handle_answer(at(2), id(b'2'), &asked(&new, one, 2), true);
        agreement.handle_switch(&new, one);
        assert_eq!(agreement.tally(at(2), FRESH, 2).agree, 2);
    }
}
