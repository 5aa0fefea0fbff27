//! What an organisation knows for itself stays with it: every byte that goes from one to another is recorded on its way,
//! and searched, plain and decoded, for what was planted and for what was learned; so is what the others keep.

mod orgs;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use orgs::{LEARNER, ORGS, Orgs, agent_of, free_port};
use relevo_core::record::Record;

/// A proxy in front of an organisation, which keeps what goes there and what comes back.
struct Tap {
    port: u16,
    asked: Arc<Mutex<Vec<u8>>>,
    answered: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(port: u16) -> Self {
        let own = free_port();
        let listener = TcpListener::bind(("127.0.0.1", own)).unwrap();
        let tap = Tap { port: own, asked: Default::default(), answered: Default::default() };
        let kept = (tap.asked.clone(), tap.answered.clone());
        thread::spawn(move || {
            for from in listener.incoming() {
                let (Ok(from), Ok(to)) = (from, TcpStream::connect(("127.0.0.1", port))) else { continue };
                let (from_too, to_too) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (asked, answered) = kept.clone();
                thread::spawn(move || pass(from, to, &asked));
                thread::spawn(move || pass(to_too, from_too, &answered));
            }
        });
        tap
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Pass on all that comes, and keep it.
fn pass(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
}

/// A team all of whose names are its own business, but for the agent that others may hand to.
fn team(org: &str) -> String {
    let entry = agent_of(org);
    let aliases = |org: &str| -> Vec<String> {
        let others = ORGS[1..].iter().filter(|other| **other != org);
        let mut aliases: Vec<String> = others.map(|other| format!("zqalias-{other}-of-{org}")).collect();
        aliases.extend((org == "orgb").then(|| "zqhidden-of-orgb".to_owned()));
        aliases
    };
    let known = |more: &[&str]| {
        format!("{:?}", [more, &aliases(org).iter().map(String::as_str).collect::<Vec<_>>()].concat())
    };
    let local = format!("zqlocal-{org}");
    let works = |name: &str, kind: &str, next: String| {
        format!(
            "[[agents]]\nname = {name:?}\ncommand = [\"../zqpath-{org}\", {kind:?}]\nobserves = [\"payload.kind\", \
             \"call.ended\", \"own.zqname-{org}\"]\nhandoffs = {next}\n"
        )
    };
    let first = match org {
        "orga" => format!(
            "[[agents]]\nname = \"front\"\nforwards = true\nobserves = [\"payload.kind\"]\nhandoffs = {}\n",
            known(&[&local])
        ),
        "orgb" => works(entry, "base64", known(&["finish", &local])),
        _ => {
            let hidden = "[[agents]]\nname = \"hidden\"\nforwards = true\nobserves = [\"payload.kind\"]\nhandoffs = [\"finish\"]\n";
            works(entry, "gz", known(&["finish", &local, "hidden"])) + hidden
        }
    };
    let remote = aliases(org).into_iter().map(|alias| {
        let (other, agent) = match alias.contains("hidden") {
            true => ("orgc", "hidden"),
            false => alias
                .split('-')
                .nth(1)
                .map(|other| (ORGS[if other == "orgb" { 1 } else { 2 }], agent_of(other)))
                .unwrap(),
        };
        format!("[[agents]]\nname = {alias:?}\nremote = \"{other}/{agent}\"\n")
    });
    let remote: String = remote.collect();
    format!(
        "schema = \"relevo.team/v1\"\nname = \"zqteam-{org}\"\ndescription = \"zqdescription-{org}\"\nstart = {entry:?}\n\
         {LEARNER}{first}{}{remote}",
        works(&local, "none", known(&["finish"]))
    )
}

/// Takes off a layer, hangs with one text in ten, and talks of its own business wherever it should not.
fn program(org: &str, leaks: bool) -> String {
    let leak = if leaks { format!(",\"facts\":{{\"zqleak\":\"zqvalue-{org}\"}}") } else { String::new() };
    format!(
        "read -r _\necho zqstderr-{org} >&2\ncase $1 in\ngz) gzip -dc <in >out 2>/dev/null ;;\nbase64) base64 -d <in >out 2>/dev/null ;;\n\
         none) cat in >out ;;\nesac\nended=$?\ngrep -q 'Order [0-9]*7:' out && exec sleep 20\n\
         private='\"private\":{{\"zqname-{org}\":\"zqvalue-{org}\"}}'\n\
         [ $ended = 0 ] && echo \"{{\\\"ok\\\":true,$private{}}}\" || \
         echo \"{{\\\"ok\\\":false,\\\"error\\\":\\\"zqerror-{org}\\\",$private}}\"",
        leak.replace('"', "\\\"")
    )
}

const WORDS: [&str; 10] = [
    "zqteam-",
    "zqdescription-",
    "zqalias-",
    "zqhidden-",
    "zqlocal-",
    "zqname-",
    "zqvalue-",
    "zqpath-",
    "zqstderr-",
    "zqerror-",
];

/// What was said between organisations, and what each keeps.
struct World {
    orgs: Orgs,
    taps: BTreeMap<&'static str, Tap>,
}

fn seed(org: &str) -> u64 {
    0x5eed_0000_7717_2301 + u64::from(org.as_bytes()[3])
}

/// All of them at work on 100 tasks.
fn world(leaks: bool) -> World {
    let orgs = Orgs::apart("[time]\ndeadline_ms = 2_000\n");
    let taps = BTreeMap::from(ORGS.map(|org| (org, Tap::before(orgs.port(org)))));
    for org in ORGS {
        orgs.place.write(&format!("{org}/team.toml"), &team(org));
        orgs.place.program(&format!("zqpath-{org}"), &program(org, leaks && org == "orgb"));
        let file = format!("{org}/node.toml");
        let node = orgs.place.read(&file).replace("seed = 7", &format!("seed = {}", seed(org)));
        let listen = format!("[listen]\nurl = {:?}", taps[org].url());
        orgs.place.write(&file, &node.replace("[listen]", &listen));
    }
    ORGS.iter().for_each(|org| orgs.meet(org, |_, other| taps[other].url()));
    orgs.tasks(50);
    let nodes = orgs.start_all();
    let said =
        orgs.place.relevo("handoff orga/node.toml --tasks tasks.jsonl --judge text --count 100 --jobs 8");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.lines().count() == 2, "{}", said.stdout);
    orgs::until("a refusal", || orgs.counted("orgb", "orgc", "refused-us:not-allowed") > 0);
    orgs::until("a task that is called off", || {
        ["orgb", "orgc"].iter().any(|org| orgs.counted(org, "orga", "canceled") > 0)
            || orgs.counted("orgb", "orgc", "canceled") + orgs.counted("orgc", "orgb", "canceled") > 0
    });
    for node in nodes {
        assert_eq!(node.stop().code(), Some(0));
    }
    World { orgs, taps }
}

/// What must not be found, with what it is.
type Secrets = Vec<(Vec<u8>, String)>;

impl World {
    /// All bytes between organisations, by what they are.
    fn crossed(&self) -> Vec<(String, Vec<u8>)> {
        let of = |(org, tap): (&&str, &Tap)| {
            let (asked, answered) = (tap.asked.lock().unwrap().clone(), tap.answered.lock().unwrap().clone());
            assert!(asked.len() > 10_000 || *org == "orga", "nobody asks {org} for anything");
            [(format!("to {org}"), asked), (format!("from {org}"), answered)]
        };
        self.taps.iter().flat_map(of).collect()
    }

    /// What was planted in an organisation and is nobody else's business, and what it has learned.
    fn secrets(&self, org: &str) -> Secrets {
        let text = |text: String| (text.clone().into_bytes(), text);
        let mut secrets: Secrets = WORDS.iter().map(|word| text(format!("{word}{org}"))).collect();
        secrets.extend(
            ["zqalias-orgb-of-", "zqalias-orgc-of-", "zqhidden-of-"].map(|word| text(format!("{word}{org}"))),
        );
        secrets.extend(number(seed(org).to_be_bytes(), seed(org).to_string()));
        let token = fs::read_to_string(self.orgs.state(org).join("operator.token")).unwrap();
        secrets.push(text(token.trim().to_owned()));
        secrets.push(text(self.orgs.place.path(org).display().to_string()));
        for bits in &self.learned(org) - &self.valued() {
            let digits = f64::from_bits(bits).to_string();
            // Anybody may write a number such as 0.5.
            if digits.len() > 12 {
                secrets.extend(number(bits.to_be_bytes(), digits));
            }
        }
        secrets
    }

    /// The numbers that follow from what the agents of an organisation have learned.
    fn learned(&self, org: &str) -> BTreeSet<u64> {
        let numbers = |record: Record| match record {
            Record::Settled { target, step, .. } => vec![target, step],
            Record::Decided { probabilities, .. } => probabilities.into_vec(),
            _ => vec![],
        };
        let numbers = self.orgs.ledger(org).into_iter().flat_map(|entry| numbers(entry.record));
        numbers.map(f64::to_bits).collect()
    }

    /// The values that were told: they are meant to cross.
    fn valued(&self) -> BTreeSet<u64> {
        let value = |record: Record| match record {
            Record::Valued { message } => Some(message.value.get().to_bits()),
            _ => None,
        };
        let records = ORGS.iter().flat_map(|org| self.orgs.ledger(org));
        records.filter_map(|entry| value(entry.record)).collect()
    }

    /// The token that one shows to another.
    fn token(&self, org: &str, to: &str) -> String {
        let known = self.orgs.place.read(&format!("{org}/.env"));
        let key = format!("{}_TOKEN=", to.to_uppercase());
        known.lines().find_map(|line| line.strip_prefix(&key)).unwrap().to_owned()
    }

    /// Every secret that is found where it must not be.
    fn leaks(&self) -> BTreeSet<String> {
        let (mut found, mut named_in) = (BTreeSet::new(), BTreeSet::new());
        let mut look = |place: &str, bytes: &[u8], secrets: &Secrets| {
            found.extend(search(bytes, secrets).into_iter().map(|secret| format!("{secret} {place}")));
        };
        let all: Secrets = ORGS.iter().flat_map(|org| self.secrets(org)).collect();
        let token =
            |org: &str, to: &str| (self.token(org, to).into_bytes(), format!("the token of {org} for {to}"));
        let pairs =
            || ORGS.into_iter().flat_map(|org| ORGS.map(|to| (org, to))).filter(|(org, to)| org != to);
        for (place, bytes) in self.crossed() {
            look(&place, &bytes, &all);
            let strange = |to: &str| place != format!("to {to}");
            look(
                &place,
                &bytes,
                &pairs().filter(|(_, to)| strange(to)).map(|(org, to)| token(org, to)).collect(),
            );
            let others: Vec<&str> = ORGS.into_iter().filter(|org| !place.ends_with(org)).collect();
            let urls = others
                .iter()
                .map(|org| (self.taps[org].url().as_bytes()[7..].to_vec(), format!("the address of {org}")));
            look(&place, &bytes, &urls.collect());
            let text = String::from_utf8_lossy(&bytes);
            let named = others.iter().filter(|org| text.contains(**org));
            named_in.extend(named.map(|org| format!("the name of {org} {place}")));
        }
        for org in ORGS {
            let others: Vec<&str> = ORGS.into_iter().filter(|other| *other != org).collect();
            let own = self.learned(org);
            let theirs = others.iter().flat_map(|other| self.secrets(other));
            let theirs = theirs.filter(|(bytes, _)| {
                let bits = <[u8; 8]>::try_from(&bytes[..])
                    .map(|bytes| [u64::from_be_bytes(bytes), u64::from_le_bytes(bytes)]);
                !bits.is_ok_and(|bits| bits.iter().any(|bits| own.contains(bits)))
            });
            let tokens = pairs().map(|(org, to)| token(org, to));
            let secrets: Secrets = theirs.chain(tokens).collect();
            let mut files = files(&self.orgs.state(org));
            assert!(files.keys().any(|name| name.ends_with("node.db")), "{:?}", files.keys());
            for name in ["log", "node.toml"] {
                let path = self.orgs.place.path(&format!("{org}/{name}"));
                files.insert(path.display().to_string(), fs::read(path).unwrap());
            }
            files.iter().for_each(|(name, bytes)| look(&format!("in {name}"), bytes, &secrets));
        }
        found.append(&mut named_in);
        found
    }
}

/// A number, as a text and as eight bytes in both orders.
fn number(bytes: [u8; 8], digits: String) -> Secrets {
    let mut reversed = bytes;
    reversed.reverse();
    let bytes = [bytes.to_vec(), reversed.to_vec(), digits.clone().into_bytes()];
    bytes.map(|bytes| (bytes, digits.clone())).into()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// The secrets that stand in bytes, plain or in base64.
fn search(bytes: &[u8], secrets: &Secrets) -> BTreeSet<String> {
    let mut by_start: HashMap<[u8; 8], Vec<&(Vec<u8>, String)>> = HashMap::new();
    // Most of all places are ruled out by their first two bytes.
    let mut begins = vec![false; 1 << 16];
    let two = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    for secret in secrets {
        begins[two(&secret.0)] = true;
        by_start.entry(secret.0[..8].try_into().unwrap()).or_default().push(secret);
    }
    let mut found = BTreeSet::new();
    let decoded = (0..4).map(|skip| decode(bytes, skip));
    for text in std::iter::once(bytes.to_vec()).chain(decoded) {
        for (at, start) in text.windows(8).enumerate().filter(|(_, start)| begins[two(start)]) {
            let candidates = by_start.get(start).into_iter().flatten();
            found.extend(
                candidates.filter(|(secret, _)| text[at..].starts_with(secret)).map(|(_, name)| name.clone()),
            );
        }
    }
    found
}

/// What every long enough run of base64 in a text stands for, from its character number `skip` on.
fn decode(text: &[u8], skip: usize) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let mut decoded = vec![];
    for run in text.split(|byte| digit(*byte).is_none()).filter(|run| run.len() > 10) {
        for four in run[skip..].chunks(4) {
            let bits = four.iter().fold(0, |bits, byte| bits << 6 | u32::from(digit(*byte).unwrap()));
            let bits = bits << (6 * (4 - four.len()));
            decoded.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
        }
        decoded.push(0);
    }
    decoded
}

#[test]
fn what_is_private_stays_where_it_is() {
    let world = world(false);
    for org in ORGS {
        let count = world.secrets(org).len();
        assert!(count > 100, "only {count} secrets are known of {org}");
    }
    assert_eq!(world.leaks(), BTreeSet::new());
}

/// The search itself must be able to find: one agent tells a secret in a public fact.
#[test]
fn a_secret_that_leaks_is_found() {
    let leaks = world(true).leaks();
    for place in ["zqvalue-orgb to orgc", "zqvalue-orgb from orgb"] {
        assert!(leaks.contains(place), "{leaks:?}");
    }
    let is_it = |leak: &String| leak.starts_with("zqvalue-orgb ") || leak.starts_with("the name of orgb ");
    assert!(leaks.iter().all(is_it), "{leaks:?}");
    assert_eq!(decode(b"\"Wm9iIQ==\" enFsZWFrLW9yZ2I=", 0), b"zqleak-orgb\0");
}
