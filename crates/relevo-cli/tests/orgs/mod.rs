//! Three organisations that hand work to each other: a team, a node file and a process each.
#![allow(dead_code)] // no test needs all of it

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use relevo_core::{
    Rng,
    record::{Entry, EntryDecoder, Record, Table},
};
use relevo_node::{ids::WireId, operator::Operator, spec::NodeSpec, store::sqlite::SqliteReader};
use serde_json::json;

use crate::place::{Place, signal};

/// One that chooses who begins, and two that each take a layer off.
pub(crate) const ORGS: [&str; 3] = ["orga", "orgb", "orgc"];

/// Which agent of an organisation others may hand to.
pub(crate) fn agent_of(org: &str) -> &'static str {
    match org {
        "orga" => "front",
        "orgb" => "unbase64",
        _ => "gunzip",
    }
}

pub(crate) const LEARNER: &str = r#"
[reward]
success = 1.0
call = -0.02
[learner]
decides = "after"
discount = 0.97
values = [-1.0, 1.0]
initial = 0.9
step = { rule = "poly", exponent = 0.7 }
policy = { rule = "posterior", variance = 0.002, floor = 0.02 }
"#;

/// The agents of an organisation, and those of others that these may hand to.
pub(crate) fn agents(org: &str) -> String {
    let works = |name: &str, kind: &str, others: &str| {
        format!(
            "[[agents]]\nname = {name:?}\ncommand = [\"../decode\", {kind:?}]\nobserves = [\"payload.kind\", \
             \"call.ended\"]\nhandoffs = [\"finish\", {name:?}, {others}]\n"
        )
    };
    let remote = |org: &str| {
        let agent = agent_of(org);
        format!("[[agents]]\nname = \"{agent}@{org}\"\nremote = \"{org}/{agent}\"\n")
    };
    match org {
        "orga" => {
            let front = "[[agents]]\nname = \"front\"\nforwards = true\nobserves = [\"payload.kind\"]\n\
                         handoffs = [\"finish\", \"unbase64@orgb\", \"gunzip@orgc\"]\n";
            front.to_owned() + &remote("orgb") + &remote("orgc")
        }
        "orgb" => works("unbase64", "base64", "\"gunzip@orgc\"") + &remote("orgc"),
        _ => works("gunzip", "gz", "\"unbase64@orgb\"") + &remote("orgb"),
    }
}

/// A folder with all of them, who know each other.
pub(crate) struct Orgs {
    pub(crate) place: Place,
    ports: [u16; 3],
}

impl Orgs {
    /// `settings` end every node file.
    pub(crate) fn new(settings: &str) -> Self {
        let orgs = Self::apart(settings);
        ORGS.iter()
            .for_each(|org| orgs.meet(org, |orgs, other| format!("http://127.0.0.1:{}", orgs.port(other))));
        orgs
    }

    /// The same before they know each other.
    pub(crate) fn apart(settings: &str) -> Self {
        let orgs = Orgs { place: Place::new(), ports: [(); 3].map(|()| free_port()) };
        orgs.place.program(
            "decode",
            "read -r _\ncase $1 in gz) gzip -dc ;; base64) base64 -d ;; esac <in >out 2>/dev/null && [ -s out ] && \
             echo '{\"ok\":true}' || echo '{\"ok\":false,\"error\":\"not decoded\"}'",
        );
        for (org, port) in ORGS.iter().zip(orgs.ports) {
            fs::create_dir(orgs.place.path(org)).unwrap();
            let entry = agent_of(org);
            orgs.place.write(
                &format!("{org}/team.toml"),
                &format!(
                    "schema = \"relevo.team/v1\"\nname = {org:?}\nstart = {entry:?}\n{LEARNER}{}",
                    agents(org)
                ),
            );
            orgs.place.write(
                &format!("{org}/node.toml"),
                &format!(
                    "schema = \"relevo.node/v1\"\nname = {org:?}\nteam = \"team.toml\"\nentry = {entry:?}\nstate = \
                     \"state\"\nseed = 7\n[listen]\naddress = \"127.0.0.1:{port}\"\n[learner]\nhorizon = 2_000\n{settings}"
                ),
            );
        }
        orgs
    }

    /// Make the two others known to one; each is given the token that it shows.
    pub(crate) fn meet(&self, org: &str, url: impl Fn(&Self, &str) -> String) {
        for other in ORGS.iter().filter(|other| **other != org) {
            let key = format!("{}_TOKEN", other.to_uppercase());
            let token = self.place.relevo(&format!(
                "join {org}/node.toml {} --name {other} --may-hand-to {} --key {key}",
                url(self, other),
                agent_of(org)
            ));
            assert_eq!(token.code, Some(0), "{}", token.stderr);
            let file = format!("{other}/.env");
            let known = fs::read_to_string(self.place.path(&file)).unwrap_or_default();
            let key = format!("{}_TOKEN", org.to_uppercase());
            self.place.write(&file, &format!("{known}{key}={}\n", token.stdout.trim()));
        }
    }

    pub(crate) fn port(&self, org: &str) -> u16 {
        self.ports[ORGS.iter().position(|known| *known == org).unwrap()]
    }

    pub(crate) fn node_file(&self, org: &str) -> PathBuf {
        self.place.path(&format!("{org}/node.toml"))
    }

    /// The folder of what a node keeps.
    pub(crate) fn state(&self, org: &str) -> PathBuf {
        self.place.path(&format!("{org}/state/{org}"))
    }

    /// Start a node, and go on at once. What it says of itself is in the file `log` beside its own.
    pub(crate) fn spawn(&self, org: &str) -> Node {
        self.spawn_by(org, self.place.command(&format!("serve {org}/node.toml")))
    }

    /// The same by a command of the test's own.
    pub(crate) fn spawn_by(&self, org: &str, mut command: Command) -> Node {
        let log = self.place.path(&format!("{org}/log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        Node(command.stderr(log).spawn().unwrap())
    }

    /// Start a node, and wait until it can be reached.
    pub(crate) fn start(&self, org: &str) -> Node {
        self.ready(org, self.spawn(org))
    }

    /// Wait until a node can be reached.
    pub(crate) fn ready(&self, org: &str, mut node: Node) -> Node {
        let mut line = String::new();
        BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("http://127.0.0.1:{}", self.port(org));
        let log = self.place.read(&format!("{org}/log"));
        assert_eq!(line, format!("{org} listens on {url}\n"), "{log}");
        node
    }

    pub(crate) fn start_all(&self) -> [Node; 3] {
        ORGS.map(|org| self.start(org))
    }

    /// Write `tasks.jsonl`: texts in one or two layers of what the others can take off.
    pub(crate) fn tasks(&self, count: usize) {
        fs::create_dir_all(self.place.path("files")).unwrap();
        let (mut script, mut lines) = (String::new(), String::new());
        for i in 0..count {
            let text = format!("Order {i}: please send {} boxes.", i * 7 % 91);
            let layers = ["base64", "gzip -nc", "gzip -nc | base64", "base64 | gzip -nc"][i % 4];
            script += &format!("printf '%s' '{text}' | {layers} > files/{i}\n");
            lines += &format!(
                "{}\n",
                json!({"id": i.to_string(), "input": format!("files/{i}"), "expect": {"text": text}})
            );
        }
        self.place.program("make", &format!("set -e\n{script}"));
        let made = Command::new("./make").current_dir(self.place.path("")).status().unwrap();
        assert!(made.success());
        self.place.write("tasks.jsonl", &lines);
    }

    /// What a node has committed to its ledger.
    pub(crate) fn ledger(&self, org: &str) -> Vec<Entry> {
        let (mut entries, mut decoder) = (vec![], EntryDecoder::default());
        let mut take = |mut bytes: &[u8]| {
            let mut before = decoder.offset();
            while let Some(entry) = decoder.decode(bytes).unwrap() {
                bytes = &bytes[(decoder.offset() - before) as usize..];
                before = decoder.offset();
                entries.push(entry);
            }
            Ok(())
        };
        SqliteReader::open(&self.state(org)).unwrap().ledger(0, &mut take).unwrap();
        entries
    }

    /// Work as the operator of a node that runs, or soon will.
    pub(crate) fn as_operator<T>(&self, org: &str, work: impl AsyncFnOnce(&Operator) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (spec, _) = NodeSpec::load(&self.node_file(org)).unwrap();
        runtime.unwrap().block_on(async {
            let mut operator = None;
            until("the node", || {
                operator = Operator::of(&spec).ok();
                operator.is_some()
            });
            work(&operator.unwrap()).await
        })
    }

    /// How often something was counted of a peer.
    pub(crate) fn counted(&self, org: &str, peer: &str, word: &str) -> u64 {
        let peers: serde_json::Value =
            serde_json::from_str(&self.place.data(&format!("peers {org}/node.toml --json"))).unwrap();
        peers[peer]["counts"][word].as_u64().unwrap_or(0)
    }
}

/// All that a ledger says of tasks in which a choice has neither been learned from nor given up.
pub(crate) fn pending(ledger: &[Entry]) -> Vec<String> {
    let mut open: BTreeMap<_, i32> = BTreeMap::new();
    for Entry { agent, record } in ledger {
        let change = match record {
            Record::Decided { table: Table::Successors, .. } => 1,
            Record::Settled { table: Table::Successors, .. } => -1,
            // What was given up was made by its agent, or had come to it.
            Record::Expired { handoff } if handoff.from == *agent => -1,
            _ => 0,
        };
        if let Some(episode) = record.episode() {
            *open.entry((agent, episode)).or_default() += change;
        }
    }
    let open: BTreeSet<_> = open.into_iter().filter(|(_, open)| *open != 0).map(|((_, e), _)| e).collect();
    let of_them = ledger.iter().filter(|entry| entry.record.episode().is_some_and(|e| open.contains(&e)));
    of_them.map(|entry| format!("{entry:?}")).collect()
}

/// The process of a node, which ends with the test at the latest.
pub(crate) struct Node(pub(crate) Child);

impl Node {
    /// End it as a crash does.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// End it as Ctrl-C does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        signal(&self.0, "INT");
        self.0.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A new id of a handoff.
pub(crate) fn new_id(rng: &mut Rng) -> WireId {
    let bits = [rng.bits().to_le_bytes(), rng.bits().to_le_bytes()].concat();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    WireId::new(now as u64, bits[..10].try_into().unwrap())
}

/// Wait until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(90), "{what} never comes");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody has. It lies below those that outgoing connections are given, so that nobody gets it while a node
/// is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() * 61 % 15_000) as u16;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
