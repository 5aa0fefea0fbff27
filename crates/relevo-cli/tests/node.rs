//! Three organisations, each a process of `relevo serve`, by the command line: they hand on, learn and go on; and what
//! is wrong is refused, with what to do about it.

mod orgs;
mod place;

use std::{fs, net::TcpListener, process::Stdio};

use orgs::{ORGS, Orgs};
use place::{Said, assert_holds, signal};
use relevo_core::record::Record;

/// The mean quality of each row of tasks that `relevo handoff` prints.
fn qualities(printed: &str) -> Vec<f64> {
    printed.lines().map(|line| line.split_whitespace().last().unwrap().parse().unwrap()).collect()
}

#[test]
fn three_organisations_learn_who_comes_next() {
    let orgs = Orgs::new("");
    orgs.tasks(60);
    let nodes = orgs.start_all();
    let hand = "handoff orga/node.toml --tasks tasks.jsonl --judge text --jobs 6 --count";
    let first = qualities(&orgs.place.ok(&format!("{hand} 60")));
    for (node, org) in nodes.into_iter().zip(ORGS) {
        assert_eq!(node.stop().code(), Some(0));
        assert!(!orgs.state(org).join("address").exists(), "{org} is still said to run");
    }

    // A second process goes on where the first was.
    let _nodes = orgs.start_all();
    let later = qualities(&orgs.place.ok(&format!("{hand} 140")));
    let (begin, end) = (first[0], later[later.len() - 1]);
    assert!(begin < 0.9 && end > 0.9, "quality does not rise: {first:?}, then {later:?}");

    let learned = || {
        let verified = ORGS.map(|org| orgs.place.data(&format!("ledger verify {org}/node.toml")));
        verified.map(|text| text.split_once('\n').unwrap().1.to_owned())
    };
    orgs::until("the last outcome", || {
        let settled = |text: &str| {
            let numbers = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            numbers.collect::<Vec<_>>().chunks(2).all(|pair| pair[0] == pair[1])
        };
        learned().iter().all(|text| settled(text))
    });
    assert_eq!(learned()[0], "front: 200 received, 200 settled\n");
    assert_eq!(orgs.counted("orga", "operator", "received"), 200);
    for (peer, other) in [("orgb", "orgc"), ("orgc", "orgb")] {
        let handed = orgs.counted("orga", peer, "handed");
        assert!(handed > 0);
        for (org, peer, word, count) in [
            ("orga", peer, "valued", handed),
            (peer, "orga", "received", handed),
            (peer, other, "valued", orgs.counted(peer, other, "handed")),
            (other, peer, "received", orgs.counted(peer, other, "handed")),
        ] {
            assert_eq!(orgs.counted(org, peer, word), count, "{org} {peer} {word}");
        }
    }
    assert_holds(&orgs.place.data("peers orga/node.toml"), &["received", "censored", "operator", "orgb"]);
}

#[test]
fn a_task_is_handed_over_and_judged_by_hand() {
    let orgs = Orgs::new("");
    let team = orgs.place.read("orgb/team.toml");
    orgs.place.write("orgb/team.toml", &team.replace("\"unbase64\", \"gunzip@orgc\"]", "]"));
    let _node = orgs.start("orgb");
    orgs.tasks(1);
    let said = orgs.place.relevo("handoff orgb/node.toml --input files/0");
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "Order 0: please send 0 boxes."),
        "{}",
        said.stderr
    );
    assert_holds(&said.stderr, &["which unbase64 values at "]);

    let said = orgs.place.relevo("handoff orgb/node.toml --input files/0 --no-wait --fact size=3");
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""), "{}", said.stderr);
    let id = said.stderr.strip_prefix("handoff ").unwrap().split([',', '\n']).next().unwrap();
    for _ in 0..2 {
        assert_eq!(
            orgs.place.data(&format!("outcome orgb/node.toml {id} 0.5")),
            format!("handoff {id}: 0.5\n")
        );
    }
    assert_eq!(orgs.counted("orgb", "operator", "outcomes"), 1);
    for (command, parts) in [
        (format!("outcome orgb/node.toml {id} 1.5"), vec!["1.5", "between 0 and 1"]),
        ("outcome orgb/node.toml 7 1".to_owned(), vec!["not the id of a handoff"]),
        (
            "outcome orgb/node.toml 0199a7c2-6f1e-7b3a-8b3a-6f1e6f1e6f1e 1".to_owned(),
            vec!["nothing was handed over under this id"],
        ),
        ("handoff orgb/node.toml --input nothing".to_owned(), vec!["nothing"]),
        ("handoff orgb/node.toml --input files/0 --to gunzip".to_owned(), vec!["gunzip", "it has unbase64"]),
        (
            "handoff orgb/node.toml --tasks tasks.jsonl --judge sha1".to_owned(),
            vec!["sha1", "sha256 and text"],
        ),
    ] {
        assert_holds(&orgs.place.error(&command), &parts);
    }
}

#[test]
fn nothing_is_learned_from_what_took_too_long() {
    let orgs = Orgs::new("[time]\ndeadline_ms = 500\n");
    let team = orgs.place.read("orgb/team.toml");
    let slow = "[[agents]]\nname = \"slow\"\ncommand = [\"sleep\", \"20\"]\nobserves = [\"payload.kind\"]\n\
                handoffs = [\"finish\"]\n";
    let first = team.replace("\"finish\", \"unbase64\", \"gunzip@orgc\"]", "\"slow\"]");
    orgs.place.write("orgb/team.toml", &(first + slow));
    orgs.tasks(1);
    let node = orgs.start("orgb");
    assert_holds(
        &orgs.place.relevo("handoff orgb/node.toml --input files/0").stderr,
        &["nothing came back: failed"],
    );
    assert_eq!(orgs.counted("orgb", "operator", "deadline"), 1);
    assert_eq!(node.stop().code(), Some(0));
    let ledger = orgs.ledger("orgb");
    assert!(ledger.iter().any(|entry| matches!(entry.record, Record::Censored { .. })));
    assert_eq!(orgs::pending(&ledger), [""; 0]);
    orgs.place.data("ledger verify orgb/node.toml");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let orgs = Orgs::new("");
    assert_holds(&orgs.place.error("peers orga/node.toml"), &["not been served yet"]);
    let whole = orgs.place.read("orga/node.toml");
    for (right, wrong, parts) in [
        ("relevo.node/v1", "relevo.node/v2", vec!["node.toml:1: ", "relevo.node/v2"]),
        ("entry = \"front\"", "entry = \"fromt\"", vec!["node.toml:4: ", "did you mean \"front\"?"]),
        ("seed = 7", "seed = -7", vec!["node.toml:6: ", "0 or more"]),
        ("horizon", "horizom", vec!["node.toml:10: ", "horizom", "horizon"]),
        ("horizon = 2_000", "horizon = 0", vec!["node.toml:10: ", "1 or more"]),
        ("127.0.0.1:", "0.0.0.0:", vec!["node.toml:8: ", "public = true"]),
        ("may_hand_to = [\"front\"]", "may_hand_to = [\"gunzip\"]", vec!["node.toml:", "gunzip"]),
        ("token = \"blake3:", "token = \"blake4:", vec!["node.toml:", "relevo join"]),
        ("[peers.orgc]", "[peers.orgd]", vec!["node.toml: ", "\"gunzip@orgc\"", "relevo join"]),
        ("key = \"ORGB_TOKEN\"", "key = \"NO_TOKEN\"", vec!["[peers.orgb] key", "NO_TOKEN", ".env"]),
        ("team = \"team.toml\"", "team = \"none.toml\"", vec!["node.toml:3: ", "none.toml"]),
    ] {
        assert!(whole.contains(right), "{right}");
        orgs.place.write("orga/node.toml", &whole.replacen(right, wrong, 1));
        let message = orgs.place.error("serve orga/node.toml");
        assert_holds(&message, &parts);
        assert!(!message.contains("rvt_"), "{message}");
    }
    orgs.place.write("orga/node.toml", &whole);

    let join = "join orga/node.toml";
    for (command, parts) in [
        ("handoff orga/node.toml --input decode".to_owned(), vec!["does not run", "relevo serve"]),
        ("serve none.toml".to_owned(), vec!["none.toml", "cannot be read"]),
        (format!("{join} http://127.0.0.1:1 --name orgb"), vec!["\"orgb\" is known already"]),
        (format!("{join} ftp://127.0.0.1:1 --name orgd"), vec!["http://"]),
        (
            format!("{join} http://127.0.0.1:1 --name orgd --may-hand-to fromt"),
            vec!["did you mean \"front\"?"],
        ),
        (format!("{join} http://127.0.0.1:1 --name Org/D"), vec!["a-z 0-9 - _"]),
    ] {
        assert_holds(&orgs.place.error(&command), &parts);
    }
    assert_eq!(orgs.place.read("orga/node.toml"), whole);
}

#[test]
fn a_place_is_taken_by_one() {
    let orgs = Orgs::new("");
    let taken = TcpListener::bind(("127.0.0.1", orgs.port("orga"))).unwrap();
    assert_holds(&orgs.place.error("serve orga/node.toml"), &["127.0.0.1:", "in use"]);
    drop(taken);

    let node = orgs.start("orga");
    assert_holds(
        &orgs.place.error_with(3, "serve orga/node.toml"),
        &["another process", "stop that one first"],
    );
    // The second one took nothing away.
    orgs.tasks(1);
    assert_eq!(orgs.place.relevo("handoff orga/node.toml --input files/0 --no-wait").code, Some(0));
    node.kill();
    assert_holds(
        &orgs.place.error("handoff orga/node.toml --input files/0"),
        &["does not run", "relevo serve"],
    );
    let node = orgs.start("orga");
    assert_eq!(node.stop().code(), Some(0));

    let team = orgs.place.read("orga/team.toml");
    orgs.place.write("orga/team.toml", &team.replace("discount = 0.97", "discount = 0.96"));
    for command in ["serve orga/node.toml", "ledger verify orga/node.toml"] {
        assert_holds(&orgs.place.error(command), &["another team file, seed or version", "`state` folder"]);
    }
    orgs.place.write("orga/team.toml", &team);

    // Somebody else is written into the ledger.
    let db = orgs.state("orga").join("node.db");
    let whole = fs::read(&db).unwrap();
    let mut forged = whole.clone();
    let at =
        whole.windows(9).position(|bytes| bytes == b"\x68operator").expect("the operator is in the ledger");
    forged[at + 1] = b'0';
    fs::write(&db, &forged).unwrap();
    for command in ["serve orga/node.toml", "ledger verify orga/node.toml"] {
        assert_holds(&orgs.place.error(command), &["orga/node.toml", "the ledger", "seal"]);
    }
    forged[..16].fill(0);
    fs::write(&db, &forged).unwrap();
    assert_holds(&orgs.place.error("serve orga/node.toml"), &["node.db", "not a database"]);
    fs::write(&db, &whole).unwrap();
    assert_eq!(orgs.start("orga").stop().code(), Some(0));
}

#[test]
fn a_snapshot_is_what_the_ledger_leads_to() {
    let orgs = Orgs::new("[ledger]\nsnapshot_entries = 10\n");
    let team = orgs.place.read("orgb/team.toml");
    orgs.place.write("orgb/team.toml", &team.replace("\"unbase64\", \"gunzip@orgc\"]", "]"));
    orgs.tasks(1);
    let node = orgs.start("orgb");
    for _ in 0..8 {
        assert_eq!(orgs.place.relevo("handoff orgb/node.toml --input files/0").code, Some(0));
    }
    assert_eq!(node.stop().code(), Some(0));
    orgs.place.data("ledger verify orgb/node.toml");

    let db = orgs.state("orgb").join("node.db");
    let open = || rusqlite::Connection::open(&db).unwrap();
    // What is in the log beside the database goes into it.
    open().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let whole = fs::read(&db).unwrap();
    for (altered, told) in [
        ("commits = commits + 1000", "commit"),
        ("state = (SELECT state FROM snapshot ORDER BY commits LIMIT 1)", "altered"),
    ] {
        let newest =
            format!("UPDATE snapshot SET {altered} WHERE commits = (SELECT max(commits) FROM snapshot)");
        assert_eq!(open().execute(&newest, []).unwrap(), 1);
        for command in ["serve orgb/node.toml", "ledger verify orgb/node.toml"] {
            assert_holds(&orgs.place.error(command), &["orgb/node.toml", "snapshot", told]);
        }
        fs::write(&db, &whole).unwrap();
    }
    assert_eq!(orgs.start("orgb").stop().code(), Some(0));
}

#[test]
fn ctrl_c_ends_what_waits() {
    let orgs = Orgs::new("");
    let nodes = orgs.start_all();
    orgs.tasks(4);
    let hand = "handoff orga/node.toml --tasks tasks.jsonl --judge text --count 100000";
    let mut hands = orgs.place.command(hand).stderr(Stdio::piped()).spawn().unwrap();
    orgs::until("work", || orgs.counted("orga", "operator", "outcomes") > 5);
    signal(&hands, "INT");
    drop(hands.stdout.take());
    let said = Said::new(hands.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130));
    assert_holds(&said.stderr, &["stopped after ", " of 100000 tasks"]);
    for node in nodes {
        assert_eq!(node.stop().code(), Some(0));
    }
    for org in ORGS {
        orgs.place.data(&format!("ledger verify {org}/node.toml"));
    }
}
