#![allow(clippy::wildcard_enum_match_arm, reason = "tests look at what they are about")]

use proptest::prelude::*;

use super::*;

const fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

const TIMEOUT: Duration = Duration::from_millis(1000);

fn address(port: u16) -> Address {
    Address::new("r", port).unwrap()
}

fn chosen() -> Chosen {
    Chosen { epoch: Epoch::new(7).unwrap(), replica: address(1) }
}

fn states() -> [State; 8] {
    let epoch = chosen().epoch;
    [
        State::None,
        State::WaitStart,
        State::SelectSlave { epoch },
        State::SendSlaveofNoone(chosen()),
        State::WaitPromotion(chosen()),
        State::Commit(chosen()),
        State::ReconfSlaves(chosen()),
        State::UpdateConfig(chosen()),
    ]
}

fn inputs() -> [Input; 15] {
    [
        Input::Started,
        Input::Elected(chosen().epoch),
        Input::NotElected,
        Input::Selected(address(1)),
        Input::NoGoodSlave,
        Input::Sent,
        Input::SaysMaster(address(1)),
        Input::SaysMaster(address(2)),
        Input::Durable,
        Input::NotDurable,
        Input::Reconfigured,
        Input::Switched,
        Input::MasterIsBack,
        Input::Superseded,
        Input::Timeout,
    ]
}

fn name(state: &State) -> String {
    let text = format!("{state:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

fn input_name(input: &Input) -> String {
    match input {
        Input::Elected(_) => "Elected".to_owned(),
        Input::Selected(_) => "Selected".to_owned(),
        Input::SaysMaster(address) if *address == chosen().replica => "SaysMaster".to_owned(),
        Input::SaysMaster(_) => "OtherSaysMaster".to_owned(),
        other => format!("{other:?}"),
    }
}

fn effect(output: &Output) -> String {
    match output {
        Output::Master(plain) => plain.channel().to_owned(),
        Output::Replica(plain, _) => format!("{}(replica)", plain.channel()),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
    }
}

fn table() -> String {
    let mut table = String::new();
    for state in states() {
        for input in inputs() {
            let mut failover = Failover::new(at(0), TIMEOUT);
            failover.state = state.clone();
            failover.retry_at = Some(at(1000));
            let mut out = Vec::new();
            failover.handle(at(1000), input.clone(), &mut out);
            if failover.state == state && out.is_empty() {
                continue;
            }
            let effects: Vec<String> = out.iter().map(effect).collect();
            let (from, to) = (name(&state), name(&failover.state));
            let line = format!("{from} {} -> {to}: {}\n", input_name(&input), effects.join(" "));
            table.push_str(&line);
        }
    }
    table
}

#[test]
fn the_table_of_transitions_is_complete() {
    let expected = "\
None Started -> WaitStart: +try-failover
WaitStart Elected -> SelectSlave: +elected-leader +failover-state-select-slave Select
WaitStart NotElected -> None: -failover-abort-not-elected Finish
WaitStart MasterIsBack -> None: Finish
WaitStart Superseded -> None: Finish
SelectSlave Selected -> SendSlaveofNoone: +selected-slave(replica) +failover-state-send-slaveof-noone(replica) Promote
SelectSlave NoGoodSlave -> None: -failover-abort-no-good-slave Finish
SelectSlave MasterIsBack -> None: Finish
SelectSlave Superseded -> None: Finish
SendSlaveofNoone Sent -> WaitPromotion: +failover-state-wait-promotion(replica) Watch
SendSlaveofNoone MasterIsBack -> None: Finish
SendSlaveofNoone Superseded -> None: Finish
SendSlaveofNoone Timeout -> None: -failover-abort-slave-timeout Finish
WaitPromotion SaysMaster -> Commit: Commit
WaitPromotion Superseded -> None: Finish
WaitPromotion Timeout -> None: -failover-abort-slave-timeout Finish
Commit Durable -> ReconfSlaves: +promoted-slave(replica) +failover-state-reconf-slaves Announce Reconfigure
Commit Superseded -> None: Finish
Commit Timeout -> Commit: Commit
ReconfSlaves Reconfigured -> UpdateConfig: +failover-end Switch
ReconfSlaves Superseded -> None: Switch Finish
ReconfSlaves Timeout -> UpdateConfig: +failover-end-for-timeout ReconfigureAll +failover-end Switch
UpdateConfig Switched -> None: Finish
UpdateConfig Superseded -> None: Finish
";
    assert_eq!(table(), expected, "{}", table());
}

#[test]
fn no_deadline_fires_early_and_every_waiting_state_has_one() {
    let mut failover = Failover::new(at(0), TIMEOUT);
    let mut out = Vec::new();
    for input in [Input::Started, Input::Elected(chosen().epoch), Input::Selected(address(1))] {
        assert_eq!(failover.deadline(), None);
        failover.handle(at(10), input, &mut out);
    }
    assert_eq!(failover.deadline(), Some(at(1010)));
    failover.handle(at(1009), Input::Timeout, &mut out);
    assert_eq!(failover.state().word(), "send_slaveof_noone");
    failover.handle(at(500), Input::Sent, &mut out);
    assert_eq!(failover.deadline(), Some(at(1500)));
    failover.handle(at(600), Input::SaysMaster(address(1)), &mut out);
    assert_eq!(failover.deadline(), None);
    assert_eq!(failover.state().announced(), None);
    failover.handle(at(700), Input::NotDurable, &mut out);
    assert_eq!(failover.deadline(), Some(at(1700)));
    failover.handle(at(1700), Input::Timeout, &mut out);
    assert_eq!(out.last(), Some(&Output::Commit(chosen())));
    failover.handle(at(1800), Input::Durable, &mut out);
    assert_eq!(failover.state().announced(), Some(&chosen()));
    assert_eq!(failover.deadline(), Some(at(2800)));
    // The others are not told to follow a master that is down, and nobody gives up on them.
    failover.set_promoted_down(true);
    assert_eq!(failover.deadline(), None);
}

proptest! {
    #[test]
    fn one_replica_an_epoch_is_promoted_and_only_after_an_election(
        inputs in proptest::collection::vec((0..15_usize, 1..3_u16, 0..800_u64), 0..80),
    ) {
        let mut failover = Failover::new(at(0), TIMEOUT);
        let (mut now, mut epoch, mut out) = (0, 0, Vec::new());
        let mut promoted: std::collections::BTreeMap<u64, Address> = Default::default();
        let mut elected = None;
        for (which, port, ms) in inputs {
            now += ms;
            let input = match inputs_at(which) {
                Input::Elected(_) => {
                    epoch += 1;
                    if failover.state == State::WaitStart {
                        elected = Some(epoch);
                    }
                    Input::Elected(Epoch::new(epoch).unwrap())
                }
                Input::Selected(_) => Input::Selected(address(port)),
                Input::SaysMaster(_) => Input::SaysMaster(address(port)),
                other => other,
            };
            failover.handle(at(now), input, &mut out);
            for output in out.drain(..) {
                match output {
                    Output::Promote(replica) => {
                        let before = promoted.insert(elected.unwrap(), replica);
                        prop_assert_eq!(before, None);
                    }
                    Output::Announce(chosen) | Output::Switch(chosen) => {
                        prop_assert_eq!(promoted.get(&chosen.epoch.get()), Some(&chosen.replica));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn inputs_at(which: usize) -> Input {
    inputs()[which].clone()
}
