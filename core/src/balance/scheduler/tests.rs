//! Each scheduler against its definition.

use super::*;

fn servers(weights: &[u32]) -> Vec<Candidate> {
    let one = |(number, &weight): (usize, &u32)| Candidate {
        address: SocketAddr::from(([10, 0, 0, u8::try_from(number).unwrap()], 6379)),
        weight,
        connections: 0,
        is_up: true,
        is_free: true,
    };
    weights.iter().enumerate().map(one).collect()
}

fn caller(number: u32) -> Caller {
    let ip = std::net::Ipv4Addr::from_bits(0xc0a8_0000 + number);
    Caller {
        client: SocketAddr::from((ip, 40_000)),
        called: SocketAddr::from(([10, 0, 0, 100], 6379)),
    }
}

fn name(place: Option<usize>) -> char {
    place.map_or('-', |place| char::from(b'A' + u8::try_from(place).unwrap()))
}

/// Lets clients come that stay, and prints whom they get.
fn staying(scheduler: Scheduler, weights: &[u32], count: u32) -> String {
    let mut picker = Picker::new(scheduler, false, false);
    let mut servers = servers(weights);
    let mut rng = Rng::new(1);
    let one = |number| {
        let place = picker.pick(&servers, &caller(number), &mut rng);
        if let Some(place) = place {
            servers[place].connections += 1;
        }
        name(place)
    };
    (0..count).map(one).collect()
}

#[test]
fn every_scheduler_follows_its_definition() {
    let table = [
        // One after the other; weight 0 gets nothing.
        (Scheduler::RoundRobin, &[1, 1, 1][..], "ABCABCA"),
        (Scheduler::RoundRobin, &[5, 0, 1], "ACACACA"),
        // The example of IPVS' own documentation: 4, 3, 2.
        (Scheduler::WeightedRoundRobin, &[4, 3, 2], "AABABCABC"),
        (Scheduler::WeightedRoundRobin, &[4, 2], "AABAAB"),
        (Scheduler::WeightedRoundRobin, &[0, 1, 1], "BCBC"),
        (Scheduler::WeightedRoundRobin, &[7], "AAAA"),
        // The fewest connections, the first of equals.
        (Scheduler::LeastConnection, &[1, 9, 1], "ABCABC"),
        // The fewest for their weight.
        (Scheduler::WeightedLeastConnection, &[1, 2], "ABBABB"),
        (Scheduler::WeightedLeastConnection, &[1, 0, 3], "ACCCACCC"),
        // (connections + 1) / weight: the heavy one first.
        (Scheduler::ShortestExpectedDelay, &[1, 3], "BBABBBA"),
        // An idle one even if it is slow.
        (Scheduler::NeverQueue, &[1, 3], "ABBBBBA"),
        (Scheduler::FailOver, &[1, 3, 2], "BBBB"),
        // The heaviest until it is full, then the next, then nobody.
        (Scheduler::Overflow, &[1, 3, 2], "BBBCCA-"),
        (Scheduler::RoundRobin, &[0, 0], "--"),
        (Scheduler::WeightedRoundRobin, &[0, 0], "--"),
        (Scheduler::WeightedLeastConnection, &[], "-"),
        (Scheduler::Maglev, &[0], "-"),
        (Scheduler::SourceHash, &[], "-"),
        (Scheduler::TwoChoices, &[0], "-"),
    ];
    for (scheduler, weights, expected) in table {
        let count = u32::try_from(expected.len()).unwrap();
        assert_eq!(staying(scheduler, weights, count), expected, "{scheduler:?} {weights:?}");
    }
}

fn shares(scheduler: Scheduler, weights: &[u32], count: u32) -> Vec<u32> {
    let mut shares = vec![0; weights.len()];
    for letter in staying(scheduler, weights, count).bytes() {
        shares[usize::from(letter - b'A')] += 1;
    }
    shares
}

#[test]
fn weights_are_shares() {
    for scheduler in [Scheduler::WeightedRoundRobin, Scheduler::WeightedLeastConnection] {
        assert_eq!(shares(scheduler, &[5, 3, 2], 1000), [500, 300, 200], "{scheduler:?}");
    }
    for scheduler in [
        Scheduler::ShortestExpectedDelay,
        Scheduler::NeverQueue,
        Scheduler::TwoChoices,
        Scheduler::SourceHash,
        Scheduler::Maglev,
    ] {
        let shares = shares(scheduler, &[5, 3, 2], 10_000);
        for (share, expected) in shares.iter().zip([5000_u32, 3000, 2000]) {
            assert!(share.abs_diff(expected) < 500, "{scheduler:?}: {shares:?}");
        }
    }
    let shares = shares(Scheduler::DestinationHash, &[5, 3], 100);
    assert!(shares.contains(&100), "one address has one server");
}

#[test]
fn a_hash_gives_a_client_the_same_server_again_and_moves_few_when_one_goes() {
    for (scheduler, moved_max) in [(Scheduler::Maglev, 60), (Scheduler::SourceHash, 1000)] {
        let mut servers = servers(&[1, 1, 1, 1, 1]);
        let mut rng = Rng::new(1);
        let all = |servers: &[Candidate], rng: &mut Rng| -> Vec<Option<usize>> {
            // A new one each time: two routers must agree without talking.
            let mut picker = Picker::new(scheduler, false, false);
            (0..1000).map(|number| picker.pick(servers, &caller(number), rng)).collect()
        };
        let before = all(&servers, &mut rng);
        assert_eq!(before, all(&servers, &mut rng));
        servers[2].is_up = false;
        let after = all(&servers, &mut rng);
        assert!(!after.contains(&Some(2)));
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != Some(2) && old != new);
        assert!(moved.count() < moved_max, "{scheduler:?}");
    }
}

#[test]
fn the_port_counts_where_it_is_asked_for() {
    for scheduler in [Scheduler::SourceHash, Scheduler::Maglev] {
        for (hashes_port, expected) in [(false, 1), (true, 4)] {
            let mut picker = Picker::new(scheduler, hashes_port, false);
            let servers = servers(&[1, 1, 1, 1]);
            let mut seen = std::collections::BTreeSet::new();
            for port in 1..200 {
                let mut caller = caller(1);
                caller.client.set_port(port);
                seen.insert(picker.pick(&servers, &caller, &mut Rng::new(1)));
            }
            assert_eq!(seen.len(), expected, "{scheduler:?} {hashes_port}");
        }
    }
}

#[test]
fn a_full_server_turns_clients_away_unless_a_hash_may_fall_back() {
    for scheduler in [Scheduler::SourceHash, Scheduler::Maglev] {
        let mut servers = servers(&[1, 1]);
        let mut rng = Rng::new(1);
        let mut strict = Picker::new(scheduler, false, false);
        let mut lenient = Picker::new(scheduler, false, true);
        let chosen = strict.pick(&servers, &caller(1), &mut rng).unwrap();
        servers[chosen].is_free = false;
        assert_eq!(strict.pick(&servers, &caller(1), &mut rng), None);
        assert_eq!(lenient.pick(&servers, &caller(1), &mut rng), Some(1 - chosen));
        // One that did not take the client is passed over always.
        assert_eq!(strict.pick_again(&servers, &caller(1), &mut rng), Some(1 - chosen));
    }
    for scheduler in [Scheduler::RoundRobin, Scheduler::WeightedRoundRobin] {
        let mut servers = servers(&[1, 1]);
        servers[0].is_free = false;
        let mut picker = Picker::new(scheduler, false, false);
        let chosen: Vec<_> =
            (0..3).map(|n| picker.pick(&servers, &caller(n), &mut Rng::new(1))).collect();
        assert_eq!(chosen, [Some(1); 3], "{scheduler:?}");
    }
}
