//! Runs that are looked at, by a collector and by a scrape: what they are told, what they are never told, and that neither
//! holds up a run.

mod collector;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use collector::{Collector, attributes};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use place::{Place, Said, assert_holds, signal};
use relevo_core::Rng;
use relevo_lab::model_server::{Asked, ModelServer, Reply};
use serde_json::{Value as Json, json};

const KEY: &str = "sk-taint-77aa";
const PASS: &str = "Basic dGFpbnQ=";

/// A model plans, a program solves, and one that fails now and then checks.
const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "desk"
[run]
episodes = 6
evaluation_tasks = 1
[tasks]
train = "train.jsonl"
test = "train.jsonl"
judge = "text"
[coordinator]
plan = "flat"
skips = false
alone = false
[models.planning]
model = "planner-1"
key = "DESK_KEY"
price = { input = 1000.0, output = 4000.0 }
[[agents]]
name = "planner"
model = "planning"
[[agents]]
name = "solver"
command = ["./solver"]
[[agents]]
name = "checker"
role = "evaluator"
command = ["./checker"]
"#;

/// A folder with the team.
fn desk() -> Place {
    let place = Place::new();
    place.write("team.toml", TEAM);
    place.write(".env", &format!("DESK_KEY={KEY}\n"));
    place.write("in", "taint-input");
    let task = json!({"id": "one", "input": "in", "expect": {"text": "taint-output"}});
    place.write("train.jsonl", &format!("{task}\n"));
    let script = |answer: &str| {
        format!(
            "cat > /dev/null\necho \"$TRACEPARENT\" >> \"$0.parents\"\necho '{answer}' > out\n\
             echo '{{\"ok\":true,\"tokens\":7,\"money\":0.25}}'"
        )
    };
    place.program(
        "solver",
        &script(r#"{"goal":"taint-input","subproblem":"s","draft_answer":"taint-output"}"#),
    );
    place.program("checker", "cat > /dev/null\nexit 9");
    place
}

/// The third request is refused.
fn plan(asked: &Asked) -> Reply {
    match asked.number {
        2 => Reply::refuse(503, "overloaded"),
        _ => Reply::of_form(asked, &mut Rng::stream(asked.number, "plan")),
    }
}

fn command(place: &Place, server: &ModelServer, arguments: &str) -> Command {
    let mut command = place.command(arguments);
    for name in
        ["DESK_KEY", "OPENAI_API_KEY", "TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"]
    {
        command.env_remove(name);
    }
    command.env("OPENAI_BASE_URL", server.url());
    command
}

#[test]
fn a_run_is_a_tree_of_spans() {
    let (place, server, collector) =
        (desk(), ModelServer::start(plan).unwrap(), Collector::start(StatusCode::OK));
    let mut learn = command(&place, &server, "learn team.toml --out run --no-preflight --otlp");
    learn
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={}", PASS.replace(' ', "%20")))
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test%2C1,service.name=other")
        .env("OTEL_SERVICE_NAME", "front-desk")
        .env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let said = Said::new(learn.output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(!said.stderr.contains("spans"), "{}", said.stderr);

    let requests = collector.requests();
    let resource = attributes(&requests[0].resource_spans[0].resource.as_ref().unwrap().attributes);
    assert_eq!(
        (&resource["service.name"], &resource["deployment.environment.name"]),
        (&json!("front-desk"), &json!("test,1"))
    );
    for (headers, body) in &*collector.got.lock().unwrap() {
        assert!(headers["authorization"] == PASS && headers["content-type"] == "application/x-protobuf");
        // What went through the team, and what it may do so with, is told to nobody.
        let text = String::from_utf8_lossy(body);
        assert!(!text.contains("taint") && !text.contains("dGFpbnQ"), "{text}");
    }

    let spans = collector.spans();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (&span.span_id[..], span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each has an identity of its own");
    let (mut kinds, mut lessons, mut chats, mut decisions) = (BTreeMap::new(), BTreeSet::new(), 0, 0);
    for span in &spans {
        assert_eq!(span.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        let kind = span.name.split(' ').next().unwrap();
        *kinds.entry(kind).or_insert(0) += 1;
        let of = attributes(&span.attributes);
        let parent = by_id.get(&span.parent_span_id[..]);
        let above = parent.map(|parent| parent.name.split(' ').next().unwrap());
        let expected = match kind {
            "session" => None,
            "invoke_workflow" => Some("session"),
            "invoke_agent" => Some("invoke_workflow"),
            "chat" => Some("invoke_agent"),
            _ => panic!("{}", span.name),
        };
        assert_eq!(above, expected, "{}", span.name);
        match parent {
            Some(parent) => assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano
                    && span.start_time_unix_nano <= span.end_time_unix_nano
                    && span.end_time_unix_nano <= parent.end_time_unix_nano,
                "{} lies in {}",
                span.name,
                parent.name
            ),
            None => assert_eq!(span.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes()),
        }
        if kind != "session" {
            assert_eq!(of["gen_ai.operation.name"], kind);
            let conversation = of["gen_ai.conversation.id"].as_str().unwrap();
            if kind == "invoke_workflow" && !conversation.starts_with("run/measured/") {
                assert!(lessons.insert(conversation.to_owned()), "{conversation} once");
            }
        }
        // What failed says how, and nothing else does.
        let is_error = span.status.as_ref().is_some_and(|status| status.code == SpanStatus::Error as i32);
        assert_eq!(of.contains_key("error.type"), is_error, "{}", span.name);
        decisions += usize::from(of.contains_key("relevo.decision.probability"))
            + span.events.iter().filter(|event| event.name == "relevo.decision").count();
        match span.name.as_str() {
            "chat planner-1" => {
                chats += 1;
                assert_eq!(
                    (&of["gen_ai.provider.name"], &of["gen_ai.agent.name"]),
                    (&json!("openai"), &json!("planner"))
                );
                assert_eq!(is_error, !of.contains_key("gen_ai.usage.output_tokens"));
            }
            "invoke_agent planner" => {
                assert_eq!(of["gen_ai.agent.id"], "desk/planner");
                assert_eq!(of["gen_ai.request.model"], "planner-1");
                assert!(
                    of["relevo.usage.money"].as_f64() > Some(0.0)
                        && of["gen_ai.usage.input_tokens"].as_i64() > Some(0)
                );
            }
            "invoke_agent solver" => assert_eq!(
                (&of["relevo.usage.tokens"], &of["gen_ai.provider.name"]),
                (&json!(7), &json!("relevo"))
            ),
            "invoke_agent checker" => assert_eq!(of["error.type"], "crash"),
            "session desk" => {
                assert_eq!((&of["relevo.run"], &of["relevo.team"]), (&json!("run"), &json!("desk")))
            }
            _ => {}
        }
    }
    assert_eq!(kinds["session"], 1);
    assert_eq!(lessons, (0..6).map(|task| format!("run/{task}")).collect());
    assert!(kinds["invoke_workflow"] > 6, "also what was measured");
    assert_eq!(chats, server.requests(), "every request, also those that were refused");
    assert!(decisions >= 12, "{decisions}");

    // Programs were told of what they are a part.
    let calls: BTreeSet<String> = spans
        .iter()
        .filter(|span| span.name == "invoke_agent solver")
        .map(|span| format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)))
        .collect();
    let told: BTreeSet<String> = place.read("solver.parents").lines().map(str::to_owned).collect();
    assert!(!told.is_empty() && told == calls, "{told:?} {calls:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_arm_of_an_evaluation_is_a_session_within_it() {
    let (place, server, collector) =
        (desk(), ModelServer::start(plan).unwrap(), Collector::start(StatusCode::OK));
    let otlp = format!("--otlp={}", collector.url());
    let arms = "evaluate team.toml --out arms --arms fixed,cold --seeds 1 --epochs 1 --metrics 0";
    let said = Said::new(command(&place, &server, &format!("{arms} {otlp}")).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let spans = collector.spans();
    let sessions: Vec<(&Span, BTreeMap<&str, Json>)> = spans
        .iter()
        .filter(|span| span.name == "session desk")
        .map(|span| (span, attributes(&span.attributes)))
        .collect();
    let (whole, of_whole) = sessions.iter().find(|(span, _)| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(of_whole["relevo.run"], "arms");
    let mut told = vec![];
    for (session, of) in &sessions {
        let Some(arm) = of.get("relevo.arm") else { continue };
        assert_eq!((&session.parent_span_id, &session.trace_id), (&whole.span_id, &whole.trace_id));
        let tasks = spans.iter().filter(|span| span.parent_span_id == session.span_id);
        let of_arm = tasks.filter(|task| attributes(&task.attributes).get("relevo.arm") == Some(arm)).count();
        told.push((of["relevo.run"].as_str().unwrap().to_owned(), of_arm));
    }
    told.sort();
    // One task is measured with each, and one is learned from.
    assert_eq!(told, [("arms/cold-1".to_owned(), 2), ("arms/fixed-1".to_owned(), 1)]);
}

/// A trace that others began is gone on with, unless they do not look at it.
#[test]
fn whoever_started_it_says_of_what_a_command_is_a_part() {
    let (place, server) = (desk(), ModelServer::start(plan).unwrap());
    let said = Said::new(command(&place, &server, "learn team.toml --out run").output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    let (whole, unseen, broken) = (format!("{parent}-01"), format!("{parent}-00"), format!("{parent}-0"));
    for (parent, is_told, is_followed, says) in [
        (whole.as_str(), true, true, ""),
        (unseen.as_str(), false, false, "not sampled"),
        (broken.as_str(), true, false, "a trace of its own"),
        ("", true, false, ""),
    ] {
        let collector = Collector::start(StatusCode::OK);
        let otlp = format!("--otlp={}", collector.url());
        let run = format!("run team.toml --policy run --input in {otlp}");
        let said = Said::new(command(&place, &server, &run).env("TRACEPARENT", parent).output().unwrap());
        assert!(said.stdout.contains("planner") && said.stderr.contains(says), "{}", said.stderr);
        let spans = collector.spans();
        assert_eq!(
            spans.iter().filter(|span| span.name == "invoke_workflow desk").count(),
            usize::from(is_told)
        );
        let is_part = |span: &Span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c";
        assert!(spans.iter().all(|span| is_part(span) == is_followed), "{parent}");
    }
}

/// Whether nobody is there, somebody never answers, or somebody refuses: the run is the same, and says what it lost.
#[test]
fn a_collector_that_is_away_or_slow_holds_up_nothing() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let refusing = Collector::start(StatusCode::SERVICE_UNAVAILABLE);
    let taking = Collector::start(StatusCode::OK);
    let place = Place::new();
    let maths = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths-simulated/team.toml");
    let many = "evaluation_tasks = 60_000";
    let team = fs::read_to_string(maths).unwrap();
    assert!(team.contains(many));
    place.write("team.toml", &team.replace(many, "evaluation_tasks = 100"));
    let learn = |out: &str, more: &str| {
        let began = Instant::now();
        let said = place.relevo(&format!("learn team.toml --episodes 300 --out {out} {more}"));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        (began.elapsed(), said.stderr)
    };
    let (unseen, _) = learn("unseen", "");
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let collectors = [
        ("gone", format!("http://{gone}"), true),
        ("silent", silent_url, true),
        ("refusing", refusing.url(), true),
        ("taking", taking.url(), false),
    ];
    for (out, url, is_lossy) in collectors {
        let (took, stderr) = learn(out, &format!("--otlp={url}"));
        // It is waited for at the end, for 2 s; the rest is room for a machine that has other work.
        assert!(took < unseen + Duration::from_secs(8), "{out}: {took:?}, and {unseen:?} unseen");
        assert_eq!(stderr.contains("spans were not sent"), is_lossy, "{out}: {stderr}");
        for file in ["ledger.cbor", "policy.json", "report.json"] {
            let [ours, theirs] = [out, "unseen"].map(|run| fs::read(place.path(run).join(file)).unwrap());
            assert!(ours == theirs, "{out}: {file} is the same");
        }
    }
    let ended = |span: &&Span| attributes(&span.attributes).contains_key("relevo.decision.stop_reason");
    let spans = taking.spans();
    assert!(spans.iter().filter(ended).count() >= 300, "{}", spans.len());
    drop(silent);
}

fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Looked at while a model is thinking, called off then, and taken up.
#[test]
fn figures_are_served_while_a_run_goes_on_and_spans_are_sent_when_it_is_called_off() {
    let (hangs, hung) = mpsc::channel();
    let server = ModelServer::start(move |asked| match asked.number {
        5 | 7 => {
            hangs.send(()).unwrap();
            Reply::Hang
        }
        _ => plan(asked),
    });
    let (place, server, collector) = (desk(), server.unwrap(), Collector::start(StatusCode::OK));
    let otlp = format!("--otlp={}", collector.url());
    let mut learn =
        command(&place, &server, &format!("learn team.toml --out run --no-preflight --metrics 0 {otlp}"));
    let (mut child, mut stderr, address) = serving(&mut learn);
    let address = address.as_str();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    hung.recv_timeout(Duration::from_secs(60)).unwrap();

    let text = scrape(address).unwrap();
    assert_holds(
        &text,
        &[
            "HTTP/1.1 200 OK",
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
            "relevo_tasks_open 1\n",
            "relevo_calls_total{agent=\"solver\",ended=\"done\"} ",
            "relevo_call_failures_total{agent=\"checker\",kind=\"crash\"} ",
            "relevo_money_total{agent=\"planner\"} ",
            "relevo_call_duration_seconds_bucket{le=\"+Inf\",agent=\"solver\"} ",
            "relevo_model_requests_total{model=\"planning\",for=\"call\",ended=\"done\"} ",
            "relevo_decisions_total{participant=\"coordinator\",explored=\"false\"} ",
            "# EOF\n",
        ],
    );
    assert!(!text.contains("taint"), "{text}");
    let closed: usize = place.stops("run").values().sum();
    assert!(text.contains(&format!("relevo_tasks_begun_total {}\n", closed + 1)), "{text}");
    let taken = place.error(&format!("learn team.toml --out other --metrics {address}"));
    assert!(taken.contains("--metrics") && taken.contains("in use"), "{taken}");
    assert!(!place.path("other").exists());

    let rest = call_off(&mut child, &mut stderr);
    assert!(!rest.contains("spans"), "{rest}");
    scrape(address).unwrap_err();
    let spans = collector.spans();
    let tasks = spans.iter().filter(|span| span.name == "invoke_workflow desk");
    let is_open = |span: &&Span| !attributes(&span.attributes).contains_key("relevo.decision.stop_reason");
    assert_eq!(tasks.filter(is_open).count(), 1, "the task that was called off");
    assert!(spans.iter().any(|span| span.name == "session desk"));

    // Figures are those of the whole run, whichever process did what; the other figures are of this one.
    let again = "learn team.toml --out run --no-preflight --resume --metrics 0";
    let (mut child, mut stderr, address) = serving(&mut command(&place, &server, again));
    hung.recv_timeout(Duration::from_secs(60)).unwrap();
    let text = scrape(&address).unwrap();
    let closed: usize = place.stops("run").values().sum();
    assert_holds(
        &text,
        &[
            &format!("relevo_tasks_begun_total {}\n", closed + 1),
            &format!("relevo_calls_total{{agent=\"solver\",ended=\"done\"}} {closed}\n"),
            "relevo_model_requests_total{model=\"planning\",for=\"call\",ended=\"done\"} 1\n",
        ],
    );
    call_off(&mut child, &mut stderr);
}

/// A command that serves figures, what it goes on to say, and where it serves them.
fn serving(command: &mut Command) -> (Child, BufReader<ChildStderr>, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("figures are at http://").unwrap().strip_suffix("/metrics").unwrap();
    (child, stderr, address.to_owned())
}

/// End a run at once, and return what it said.
fn call_off(child: &mut Child, stderr: &mut BufReader<ChildStderr>) -> String {
    // The first is to end it in order, and one that comes too soon after it is none of its own.
    while child.try_wait().unwrap().is_none() {
        signal(child, "INT");
        thread::sleep(Duration::from_millis(20));
    }
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    rest
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let place = desk();
    let learn = |otlp: &str, name: &str, value: &str| {
        let mut command = place.command(&format!("learn team.toml --out run {otlp}"));
        let said = Said::new(command.env(name, value).output().unwrap());
        assert!(said.code != Some(0) && !place.path("run").exists(), "{}", said.stderr);
        said.stderr
    };
    for (otlp, name, value, says) in [
        ("--otlp", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "is \"grpc\""),
        ("--otlp", "OTEL_EXPORTER_OTLP_HEADERS", "dGFpbnQ", "not of the form name=value"),
        ("--otlp", "OTEL_RESOURCE_ATTRIBUTES", "dGFpbnQ", "not of the form name=value"),
        ("--otlp=ftp://there", "OTEL_SERVICE_NAME", "desk", "--otlp"),
        ("--metrics nine", "OTEL_SERVICE_NAME", "desk", "it is a port such as 9464"),
    ] {
        let said = learn(otlp, name, value);
        assert!(said.contains(says) && !said.contains("dGFpbnQ"), "{said}");
    }
}

/// The program of a tool server outlives the call that started it, and is told of none; its calls are told.
#[test]
fn a_call_of_a_tool_is_a_span() {
    let (place, server, collector) =
        (desk(), ModelServer::start(plan).unwrap(), Collector::start(StatusCode::OK));
    let program = env!("CARGO_BIN_EXE_relevo");
    let tools = format!(
        "[tools.lab]\ncommand = [\"{program}\", \"lab\", \"tool-server\", \"--texts\", \"texts.jsonl\"]"
    );
    let memory = "[[agents]]\nname = \"memory\"\ntool = \"lab.search\"\narguments = { query = \"{goal}\" }\n";
    place.write("team.toml", &TEAM.replacen("[[agents]]", &format!("{tools}\n{memory}[[agents]]"), 1));
    place.write("texts.jsonl", &json!({"source": "atlas", "text": "taint"}).to_string());
    let otlp = format!("--otlp={}", collector.url());
    let said =
        Said::new(command(&place, &server, &format!("learn team.toml --out run {otlp}")).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let spans = collector.spans();
    let calls: Vec<&Span> = spans.iter().filter(|span| span.name == "invoke_agent memory").collect();
    let of_tool: Vec<&Span> = spans.iter().filter(|span| span.name == "execute_tool search").collect();
    assert!(!of_tool.is_empty() && of_tool.len() == calls.len(), "{} for {}", of_tool.len(), calls.len());
    for span in of_tool {
        let of = attributes(&span.attributes);
        assert_eq!((&of["gen_ai.tool.name"], &of["relevo.tool.server"]), (&json!("search"), &json!("lab")));
        assert!(calls.iter().any(|call| call.span_id == span.parent_span_id));
    }
}
