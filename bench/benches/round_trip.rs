//! Handoffs over loopback A2A, by HTTP/1.1 and JSON-RPC, with both ends, their stores and every commit synced, in this process:
//! how long until a handoff is taken and valued, and how long until a result is back through one organisation and through two.
//! The limit is printed beside: a bare HTTP request to the same node, and one synced append of 4 KiB.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::{Instant, SystemTime},
};

use relevo::artifact::Artifact;
use relevo_bench::met;
use relevo_node::{ids::WireId, operator::Operator, serve::serve, spec::NodeSpec, transport::a2a::TokenHash};
use tokio::sync::oneshot;

const HANDOFFS: u64 = 2_000;
const TOKEN: &str = "rvt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const LEARNER: &str = "[learner]\ndecides = \"before\"\nvalues = [-1.0, 1.0]\n";

/// Write the files of an organisation whose agent decides and does nothing else.
fn organisation(folder: &Path, name: &str, agents: &str, peers: &str) -> NodeSpec {
    fs::create_dir_all(folder).unwrap();
    let team = format!("schema = \"relevo.team/v1\"\nname = {name:?}\nstart = \"entry\"\n{LEARNER}{agents}");
    fs::write(folder.join("team.toml"), team).unwrap();
    let node = format!(
        "schema = \"relevo.node/v1\"\nname = {name:?}\nteam = \"team.toml\"\nentry = \"entry\"\nstate = \"state\"\nseed = 1\n[listen]\n\
         address = \"127.0.0.1:0\"\n{peers}"
    );
    fs::write(folder.join("node.toml"), node).unwrap();
    NodeSpec::load(&folder.join("node.toml")).unwrap().0
}

fn agent(name: &str, to: &str) -> String {
    format!("[[agents]]\nname = {name:?}\nforwards = true\nobserves = [\"kind\"]\nhandoffs = [{to:?}]\n")
}

/// Serve it beside; its address, and what ends it.
async fn start(folder: &Path) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (spec, team) = NodeSpec::load(&folder.join("node.toml")).unwrap();
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let ready = move |url: &str| tell.send(url.to_owned()).unwrap();
        serve(&spec, team, None, ready, async move { drop(stopped.await) }).await.unwrap();
    });
    (told.await.unwrap(), stop, serving)
}

fn wire_id(n: u64) -> WireId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    WireId::new(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64, &random)
}

/// The median and the 99th percentile of how long something takes, in milliseconds; one after another.
async fn time<T>(mut each: impl AsyncFnMut(u64) -> T) -> (f64, f64) {
    for n in 0..HANDOFFS / 10 {
        each(n).await;
    }
    let mut times = vec![];
    for n in 0..HANDOFFS {
        let began = Instant::now();
        each(HANDOFFS + n).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    (at(0.5), at(0.99))
}

fn tell(what: &str, (p50, p99): (f64, f64)) {
    println!("{what:<62} p50 {p50:>6.2} ms, p99 {p99:>6.2} ms");
}

async fn run(place: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(place.join("syncs")).unwrap();
    let synced = time(async |_| {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
    });
    tell("limit: an append of 4 KiB, synced", synced.await);

    let (a, b) = (place.join("a"), place.join("b"));
    let known = format!(
        "[peers.a]\nurl = \"http://127.0.0.1:9\"\nmay_hand_to = [\"entry\"]\ntoken = \"{}\"\nrate = 1e6\nburst = 1e6\n",
        TokenHash::of(TOKEN)
    );
    organisation(&b, "b", &agent("entry", "finish"), &known);
    let (url, stop_b, serving_b) = start(&b).await;
    let there = agent("entry", "there") + "[[agents]]\nname = \"there\"\nremote = \"b/entry\"\n";
    organisation(&a, "a", &there, &format!("[peers.b]\nurl = {url:?}\nkey = \"TOKEN\"\n"));
    fs::write(a.join(".env"), format!("TOKEN={TOKEN}\n")).unwrap();
    let (_, stop_a, serving_a) = start(&a).await;

    let (http, card) = (reqwest::Client::new(), format!("{url}/.well-known/agent-card.json"));
    let bare = async |_| http.get(&card).send().await.unwrap().bytes().await.unwrap();
    tell("limit: an HTTP request for a card", time(bare).await);

    let artifact = Artifact { facts: Default::default(), payload: vec![7; 200].into() };
    let operator = |folder: &Path| {
        let spec = NodeSpec::load(&folder.join("node.toml")).unwrap().0;
        Operator::of(&spec).unwrap()
    };
    let (of_a, of_b) = (operator(&a), operator(&b));
    let taken = time(async |n| of_b.hand(wire_id(n), "entry", &artifact, false).await.unwrap()).await;
    tell("a handoff, until it is taken for good and its value is back", taken);
    println!("goal: p50 below 2 ms, {}", met(taken.0 < 2.0));
    let back = time(async |n| of_a.hand(wire_id(n), "entry", &artifact, true).await.unwrap().result.unwrap());
    tell("a task handed on to another organisation, until its result is back", back.await);
    drop((stop_a, stop_b));
    serving_a.await.unwrap();
    serving_b.await.unwrap();
}

fn main() {
    let place = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(place.path()));
}
