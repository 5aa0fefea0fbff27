//! A node whose disk is full refuses what it cannot keep, loses nothing that it has acknowledged, can be stopped, and
//! goes on once there is room.

mod orgs;
mod place;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use orgs::{Node, Orgs, new_id};
use relevo::artifact::Artifact;
use relevo_core::Rng;
use relevo_node::{ids::WireId, operator::Operator};

/// A node whose files may not grow beyond so many blocks of 512 bytes: the system refuses what is more.
fn start_limited(orgs: &Orgs, blocks: u32) -> Node {
    let mut command = Command::new("sh");
    let limited = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" serve orgb/node.toml");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_relevo")]).current_dir(orgs.place.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    orgs.ready("orgb", orgs.spawn_by("orgb", command))
}

/// Hand over until something is refused: what was acknowledged, and what was not.
async fn fill(
    orgs: &Orgs,
    operator: &Operator,
    rng: &mut Rng,
) -> (BTreeMap<WireId, Artifact>, (WireId, Artifact)) {
    let mut taken = BTreeMap::new();
    for number in 0..10_000 {
        let (id, payload) = (new_id(rng), format!("{number:04}").into_bytes().into());
        let artifact = Artifact { facts: Default::default(), payload };
        match operator.hand(id, "unbase64", &artifact, false).await {
            Ok(_) => taken.insert(id, artifact),
            Err(e) => {
                assert!(e.starts_with("not now"), "{e}: {}", orgs.place.read("orgb/log"));
                return (taken, (id, artifact));
            }
        };
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_loses_nothing() {
    let orgs = Orgs::new("[time]\ndeadline_ms = 3_000\noutcome_after = 1\n");
    let team = orgs.place.read("orgb/team.toml");
    orgs.place.write("orgb/team.toml", &team.replace("\"unbase64\", \"gunzip@orgc\"]", "]"));
    let mut rng = Rng::stream(7, "full");
    let node = start_limited(&orgs, 900);
    orgs.as_operator("orgb", async |operator| {
        let (taken, (id, artifact)) = fill(&orgs, operator, &mut rng).await;
        assert!(taken.len() > 5, "{}", taken.len());
        let room = format!("--pid={} --fsize=unlimited", node.0.id());
        assert!(Command::new("prlimit").args(room.split(' ')).status().unwrap().success());
        for (id, artifact) in taken.into_iter().chain([(id, artifact)]) {
            let handed = operator.hand(id, "unbase64", &artifact, true).await.unwrap();
            assert_ne!(handed.result, Err("working".to_owned()));
        }
    });
    assert_eq!(node.stop().code(), Some(0));
    orgs.place.data("ledger verify orgb/node.toml");

    // One that is full can be stopped, and started where there is room.
    let node = start_limited(&orgs, 3_000);
    let (taken, _) = orgs.as_operator("orgb", async |operator| fill(&orgs, operator, &mut rng).await);
    assert_eq!(node.stop().code(), Some(0));
    let node = orgs.start("orgb");
    orgs.as_operator("orgb", async |operator| {
        for (id, artifact) in taken {
            let handed = operator.hand(id, "unbase64", &artifact, true).await.unwrap();
            assert_ne!(handed.result, Err("working".to_owned()));
        }
    });
    assert_eq!(node.stop().code(), Some(0));
    orgs.place.data("ledger verify orgb/node.toml");
}
