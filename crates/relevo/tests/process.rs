//! Programs as agents, with real processes: what a good one gets and gives, and what is left of a bad one (nothing).
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use relevo::{
    agent::{
        Agent, Ending, Failure, FailureKind, HandoffLabel, OperationCall, Outcome, STDERR_TAIL_BYTES_MAX,
        process::{Brief, ProcessAgent},
    },
    artifact::{Artifact, Facts, Scalar},
};
use tempfile::TempDir;

/// A folder with one program, `agent.sh`.
struct Folder(TempDir);

impl Folder {
    fn new(script: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.path("agent.sh"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(folder.path("agent.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self) -> ProcessAgent {
        ProcessAgent { timeout: Duration::from_secs(5), ..ProcessAgent::new(["./agent.sh"], self.0.path()) }
    }

    /// What the program has written into the file `name` of this folder, once it is there.
    async fn told(&self, name: &str) -> String {
        for _ in 0..500 {
            match fs::read_to_string(self.path(name)) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        panic!("the program never wrote {name}");
    }
}

fn call() -> OperationCall<'static> {
    OperationCall { agent: "gunzip", operation: "default", handoff: HandoffLabel("12/3/4".into()) }
}

fn facts(json: &str) -> Facts {
    serde_json::from_str(json).unwrap()
}

fn artifact() -> Artifact {
    Artifact { facts: facts(r#"{"kept":1,"changed":"old"}"#), payload: Arc::from(*b"payload\x00\xff") }
}

async fn perform(agent: &ProcessAgent) -> Outcome {
    agent.perform(&call(), artifact()).await
}

/// The failure of a script, after making sure that the artifact came back untouched.
async fn fails(script: &str) -> Failure {
    failure_of(perform(&Folder::new(script).agent()).await)
}

fn failure_of(outcome: Outcome) -> Failure {
    let Ending::Failed(failure) = outcome.ending else { panic!("done: {outcome:?}") };
    assert_eq!(outcome.artifact, artifact());
    failure
}

/// Whether the process is there and not merely waiting for an init that never reaps.
fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn assert_gone(pids: &str) {
    assert!(!pids.is_empty());
    for pid in pids.split_whitespace() {
        let asked = Instant::now();
        while alive(pid) {
            assert!(asked.elapsed() < Duration::from_secs(1), "process {pid} is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn assert_removed(directory: &str) {
    assert!(directory.contains("relevo-"), "{directory}");
    let asked = Instant::now();
    while Path::new(directory).exists() {
        assert!(asked.elapsed() < Duration::from_secs(1), "{directory} is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

// ---- good programs ----

#[tokio::test]
async fn a_good_call_goes_around() {
    let folder = Folder::new(
        r#"cat > "${0%/*}/request"
        { cat in; printf ' and more'; } > out
        echo '{"ok":true,"facts":{"changed":"new","n":-7},"private":{"seen":true},"tokens":17,"reward":-0.5}'"#,
    );
    let outcome = perform(&folder.agent()).await;
    assert_eq!(outcome.ending, Ending::Done, "{outcome:?}");
    assert_eq!(&outcome.artifact.payload[..], b"payload\x00\xff and more");
    assert_eq!(outcome.artifact.facts, facts(r#"{"kept":1,"changed":"new","n":-7}"#));
    assert_eq!(outcome.private, facts(r#"{"seen":true}"#));
    assert_eq!((outcome.tokens, outcome.reward), (17, Some(-0.5)));
    assert_eq!(
        fs::read_to_string(folder.path("request")).unwrap(),
        concat!(
            r#"{"schema":"relevo.call/v1","handoff":"12/3/4","agent":"gunzip","operation":"default","#,
            r#""facts":{"changed":"old","kept":1},"payload":{"path":"in","bytes":9},"output":"out"}"#,
            "\n"
        )
    );
    assert_eq!(call().to_string(), "gunzip/default at handoff 12/3/4");
}

#[tokio::test]
async fn a_program_is_told_its_skill() {
    let folder = Folder::new(r#"cat > out; echo '{"ok":true}'"#);
    let brief = Brief {
        skill: Some("cot".into()),
        model: Some("mini".into()),
        tools: vec!["web".into()],
        instructions: "Step by step.".into(),
    };
    let outcome = perform(&ProcessAgent { brief, ..folder.agent() }).await;
    let request = String::from_utf8_lossy(&outcome.artifact.payload).into_owned();
    let told =
        r#""output":"out","skill":"cot","model":"mini","tools":["web"],"instructions":"Step by step."}"#;
    assert!(request.trim_end().ends_with(told), "{request}");
}

#[tokio::test]
async fn without_out_the_payload_is_shared_and_not_copied() {
    let given = artifact();
    let outcome = Folder::new(r#"printf '\n {"ok":true}\n\n'"#).agent().perform(&call(), given.clone()).await;
    assert_eq!(outcome.ending, Ending::Done);
    assert!(Arc::ptr_eq(&outcome.artifact.payload, &given.payload));
}

#[tokio::test]
async fn an_empty_out_is_an_empty_payload() {
    let outcome = perform(&Folder::new(r#": > out; echo '{"ok":true}'"#).agent()).await;
    assert_eq!(outcome.ending, Ending::Done);
    assert!(outcome.artifact.payload.is_empty());
}

#[tokio::test]
async fn paths_of_the_command_begin_at_the_folder() {
    let folder = Folder::new(r#"cat "$1" > out; echo "{\"ok\":true,\"facts\":{\"two\":\"$2\"}}""#);
    fs::write(folder.path("beside"), "beside").unwrap();
    // The program is looked up in PATH, its script and its file are paths, and the last argument is neither.
    let command = ["sh", "./agent.sh", "./beside", "agent.sh"];
    let agent = ProcessAgent { command: command.map(String::from).to_vec(), ..folder.agent() };
    let outcome = perform(&agent).await;
    assert_eq!(&outcome.artifact.payload[..], b"beside", "{outcome:?}");
    assert_eq!(outcome.artifact.facts["two"], Scalar::Text("agent.sh".into()));
}

#[tokio::test]
async fn a_program_need_not_read_stdin() {
    let payload: Arc<[u8]> = vec![7; 5_000_000].into();
    let text = Scalar::Text("x".repeat(256));
    let facts: Facts = (0..64).map(|i| (format!("{i}"), text.clone())).collect();
    let folder = Folder::new(r#"exec <&-; cp in out; echo '{"ok":true}'"#);
    let outcome = folder.agent().perform(&call(), Artifact { facts, payload: payload.clone() }).await;
    assert_eq!(outcome.ending, Ending::Done);
    assert!(outcome.artifact.payload == payload);
}

#[tokio::test]
async fn of_the_environment_only_what_is_named_goes_over() {
    let folder = Folder::new(r#"env > out; echo '{"ok":true}'"#);
    // cargo sets both for the tests.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let mut agent = folder.agent();
    agent.environment.push("CARGO_PKG_NAME".into());
    agent.environment.push("RELEVO_IS_NOT_SET".into());
    let outcome = perform(&agent).await;
    let text = String::from_utf8_lossy(&outcome.artifact.payload).into_owned();
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"CARGO_PKG_NAME") && names.contains(&"PATH"), "{names:?}");
    for name in names {
        // The last four are the shell's own.
        let expected =
            ["CARGO_PKG_NAME", "PATH", "HOME", "LANG", "TZ", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(expected.contains(&name), "{name} leaked");
    }
}

#[tokio::test]
async fn the_directory_is_private_and_gone_afterwards() {
    for (after, kind) in [
        (r#"echo '{"ok":true}'"#, None),
        ("exit 1", Some("crash")),
        ("sleep 60", Some("timeout")),
        // Of these directories, nobody may remove anything.
        (r#"mkdir -p a/b; touch a/b/c; chmod 0 a/b a; chmod 0500 .; echo '{"ok":true}'"#, None),
    ] {
        let folder = Folder::new(&format!(
            r#"pwd > "${{0%/*}}/cwd"; stat -c %a . > "${{0%/*}}/mode"; touch other; {after}"#
        ));
        let outcome = perform(&ProcessAgent { timeout: Duration::from_millis(300), ..folder.agent() }).await;
        assert_eq!(outcome.failure().map(|f| f.kind().word()), kind);
        assert_eq!(folder.told("mode").await, "700");
        let cwd = folder.told("cwd").await;
        assert!(cwd.contains("relevo-") && !Path::new(&cwd).exists(), "{cwd}");
    }
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let folder = Folder::new(r#"sleep 0.2; cat in > out; echo '{"ok":true}'"#);
    let (agent, begun) = (Arc::new(folder.agent()), Instant::now());
    let calls: Vec<_> = (0..20u8)
        .map(|i| {
            let agent = agent.clone();
            let artifact = Artifact { facts: Facts::new(), payload: vec![i].into() };
            tokio::spawn(async move { agent.perform(&call(), artifact).await })
        })
        .collect();
    for (i, called) in calls.into_iter().enumerate() {
        assert_eq!(&called.await.unwrap().artifact.payload[..], [i as u8]);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

// ---- programs that fail ----

#[tokio::test]
async fn a_timeout_leaves_no_process_behind() {
    let folder = Folder::new(r#"sleep 60 & echo $$ $! > "${0%/*}/pids"; sleep 60"#);
    let begun = Instant::now();
    let outcome = perform(&ProcessAgent { timeout: Duration::from_millis(200), ..folder.agent() }).await;
    assert_eq!(failure_of(outcome), Failure::Timeout { ms: 200 });
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_gone(&folder.told("pids").await).await;
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_behind() {
    let folder = Folder::new(r#"sleep 60 & pwd > "${0%/*}/cwd"; echo $$ $! > "${0%/*}/pids"; sleep 60"#);
    let agent = folder.agent();
    let pids = tokio::select! {
        outcome = perform(&agent) => panic!("{outcome:?}"),
        pids = folder.told("pids") => pids,
    };
    // At once, as the runtime may end with the drop.
    assert!(!Path::new(&folder.told("cwd").await).exists());
    assert_gone(&pids).await;
}

#[tokio::test]
async fn a_call_dropped_while_it_starts_leaves_nothing_behind() {
    for micros in (0..3000).step_by(150) {
        let folder = Folder::new(r#"pwd > "${0%/*}/cwd"; echo $$ > "${0%/*}/pids"; sleep 60"#);
        let agent = folder.agent();
        assert!(tokio::time::timeout(Duration::from_micros(micros), perform(&agent)).await.is_err());
        // Each file may be missing, or empty, if the program was killed before it came so far.
        let read = |name| fs::read_to_string(folder.path(name)).ok().filter(|text| text.ends_with('\n'));
        if let Some(pids) = read("pids") {
            assert_gone(&pids).await;
        }
        if let Some(cwd) = read("cwd") {
            assert_removed(cwd.trim()).await;
        }
    }
}

#[tokio::test]
async fn a_child_left_behind_does_not_hold_the_call() {
    let folder = Folder::new(r#"sleep 60 & echo $! > "${0%/*}/pids"; echo '{"ok":true}'"#);
    let begun = Instant::now();
    let outcome = perform(&folder.agent()).await;
    assert_eq!(outcome.ending, Ending::Done);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_gone(&folder.told("pids").await).await;

    // Also one that holds no pipe, and so costs no grace.
    let folder =
        Folder::new(r#"sleep 60 </dev/null >/dev/null 2>&1 & echo $! > "${0%/*}/pids"; echo '{"ok":true}'"#);
    assert_eq!(perform(&folder.agent()).await.ending, Ending::Done);
    assert_gone(&folder.told("pids").await).await;
}

#[tokio::test]
async fn a_crash_is_a_crash_whatever_was_said_before() {
    let folder = Folder::new(r#"echo '{"ok":true,"tokens":5}'; echo 'no more memory' >&2; exit 3"#);
    let outcome = perform(&folder.agent()).await;
    assert_eq!((outcome.tokens, &*outcome.stderr_tail), (0, "no more memory\n"));
    let failure = failure_of(outcome);
    assert_eq!(failure, Failure::Crashed { code: Some(3), signal: None });
    assert_eq!(failure.to_string(), "the program ended with exit code 3; the end of its stderr may say why");

    let failure = fails("kill -SEGV $$").await;
    assert_eq!(failure, Failure::Crashed { code: None, signal: Some(11) });
    assert!(failure.to_string().contains("killed by signal 11"));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_agent() {
    let folder = Folder::new(
        r#"echo x > out; ln -s in out2; echo '{"ok":false,"error":"not gzip","facts":{"changed":"new"},"private":{"tried":1},"tokens":3}'"#,
    );
    let outcome = perform(&folder.agent()).await;
    assert_eq!((outcome.tokens, &outcome.private), (3, &facts(r#"{"tried":1}"#)));
    assert_eq!(failure_of(outcome), Failure::Refused("not gzip".into()));
    assert_eq!(fails(r#"ln -s in out; echo '{"ok":false}'"#).await.kind(), FailureKind::Refused);
}

/// What services say is told by its kind and its status, and by nothing that stands in a message.
#[tokio::test]
async fn failures_are_classified_by_status_and_kind_never_by_their_text() {
    use FailureKind::*;
    for (reply, kind) in [
        (r#""status":401"#, Auth),
        (r#""status":403"#, Auth),
        (r#""status":402"#, Quota),
        (r#""status":429"#, RateLimit),
        (r#""status":429,"kind":"quota""#, Quota),
        (r#""status":400"#, InvalidRequest),
        (r#""status":404"#, InvalidRequest),
        (r#""status":408"#, Unavailable),
        (r#""status":499"#, Cancelled),
        (r#""status":500"#, Unavailable),
        (r#""status":529"#, Unavailable),
        (r#""status":200"#, Refused),
        (r#""kind":"auth""#, Auth),
        (r#""kind":"denied""#, Denied),
        (r#""kind":"invalid-request","error":"rate limit 429""#, InvalidRequest),
        (r#""error":"took 4030 ms""#, Refused),
        (r#""error":"401 unauthorized: quota exceeded, rate limit""#, Refused),
        (r#""status":503,"error":"401""#, Unavailable),
    ] {
        let failure = fails(&format!("echo '{{\"ok\":false,{reply}}}'")).await;
        assert_eq!(failure.kind(), kind, "{reply}: {failure}");
        assert_eq!(failure.is_terminal(), matches!(kind, Auth | Quota), "{reply}");
        assert_eq!(failure.is_transient(), matches!(kind, RateLimit | Unavailable), "{reply}");
    }
    let failure = fails(r#"echo '{"ok":false,"status":429,"retry_after_ms":250,"error":"slow down"}'"#).await;
    assert_eq!(failure, Failure::RateLimited { reason: "slow down".into(), retry_after_ms: Some(250) });
    // A failed call has cost what it says.
    let folder = Folder::new(r#"echo '{"ok":false,"status":500,"money":0.25,"tokens":9,"cached":true}'"#);
    let outcome = perform(&folder.agent()).await;
    assert_eq!((outcome.money, outcome.tokens, outcome.cached), (0.25, 9, true));
}

#[tokio::test]
async fn garbage_of_every_kind_is_named() {
    for (script, said) in [
        ("", "no reply"),
        ("echo; echo '  '", "no reply"),
        ("echo hello", "no reply of relevo.call/v1"),
        ("echo '[]'", "no reply of relevo.call/v1"),
        ("echo '{}'", "missing field `ok`"),
        (r#"echo '{"ok":1}'"#, "expected a boolean"),
        (r#"echo '{"ok":true'"#, "EOF"),
        (r#"echo '{"ok":true,"ok":true}'"#, "duplicate field `ok`"),
        (r#"echo '{"ok":true,"token":1}'"#, "unknown field `token`"),
        (r#"echo '{"ok":true} {"ok":true}'"#, "trailing characters"),
        (r#"echo '{"ok":true}'; echo working"#, "2 lines"),
        (r#"printf '\377\n'"#, "not UTF-8"),
        (r#"echo '{"ok":true,"reward":NaN}'"#, "no reply of relevo.call/v1"),
        (r#"echo '{"ok":true,"reward":1e999}'"#, "number out of range"),
        (r#"echo '{"ok":true,"reward":"1"}'"#, "expected f64"),
        (r#"echo '{"ok":true,"tokens":-1}'"#, "expected u64"),
        (r#"echo '{"ok":true,"tokens":1.5}'"#, "expected u64"),
        (r#"echo '{"ok":true,"money":-0.1}'"#, "`money` of the reply is -0.1"),
        (r#"echo '{"ok":false,"status":600}'"#, "`status` of the reply is 600"),
        (r#"echo '{"ok":false,"kind":"busy"}'"#, "unknown variant `busy`"),
        (r#"echo '{"ok":true,"kind":"auth"}'"#, "says that it failed"),
        (r#"echo '{"ok":true,"status":500}'"#, "says that it failed"),
        (r#"echo '{"ok":true,"facts":{"x":1.5}}'"#, "`facts` of the reply: fact `x`"),
        (r#"echo '{"ok":true,"private":{"x":[]}}'"#, "`private` of the reply: fact `x`"),
        (r#"ln -s /etc/passwd out; echo '{"ok":true}'"#, "a symbolic link"),
        (r#"mkfifo out; echo '{"ok":true}'"#, "no regular file"),
        (r#"mkdir out; echo '{"ok":true}'"#, "no regular file"),
    ] {
        let failure = fails(script).await;
        assert_eq!(failure.kind(), FailureKind::Garbage, "{script}: {failure}");
        assert!(failure.to_string().contains(said), "{script}: {failure}");
        assert!(failure.to_string().len() < 1000);
    }
}

#[tokio::test]
async fn facts_may_not_outgrow_their_limit_by_merging() {
    let folder = Folder::new(r#"echo '{"ok":true,"facts":{"one-more":1}}'"#);
    let full: Facts = (0..64).map(|i| (format!("{i}"), Scalar::Int(i))).collect();
    let given = Artifact { facts: full, payload: Arc::from([]) };
    let outcome = folder.agent().perform(&call(), given.clone()).await;
    assert_eq!(outcome.failure().map(Failure::kind), Some(FailureKind::Garbage));
    assert_eq!(outcome.artifact, given);
}

#[tokio::test]
async fn an_endless_reply_is_cut_off() {
    let begun = Instant::now();
    let failure = fails("yes").await;
    assert_eq!(failure, Failure::TooLong { what: "the reply on stdout".into(), bytes_max: 1 << 20 });
    assert!(begun.elapsed() < Duration::from_secs(2));

    let folder = Folder::new(r#"printf '{"ok":true}\n'"#);
    let with_max = |reply_bytes_max| ProcessAgent { reply_bytes_max, ..folder.agent() };
    assert_eq!(perform(&with_max(12)).await.ending, Ending::Done);
    assert_eq!(failure_of(perform(&with_max(11)).await).kind(), FailureKind::TooLong);
}

#[tokio::test]
async fn stderr_never_blocks_and_only_its_end_is_kept() {
    let outcome = perform(
        &Folder::new(r#"yes | head -c 1M >&2; printf '\377 the end' >&2; echo '{"ok":true}'"#).agent(),
    )
    .await;
    assert_eq!(outcome.ending, Ending::Done);
    assert!(outcome.stderr_tail.ends_with("y\n\u{fffd} the end"));
    assert!((2000..=STDERR_TAIL_BYTES_MAX).contains(&outcome.stderr_tail.len()));

    let binary = perform(&Folder::new(r#"head -c 9k /dev/zero | tr '\0' '\377' >&2; exit 1"#).agent()).await;
    assert!(binary.stderr_tail.len() <= STDERR_TAIL_BYTES_MAX);

    let endless = Folder::new("yes >&2");
    let outcome = perform(&ProcessAgent { timeout: Duration::from_millis(200), ..endless.agent() }).await;
    assert_eq!(outcome.stderr_tail.len(), STDERR_TAIL_BYTES_MAX);
    assert_eq!(failure_of(outcome).kind(), FailureKind::Timeout);
}

#[tokio::test]
async fn a_bomb_does_not_go_off() {
    let too_long = Failure::TooLong { what: "the file `out`".into(), bytes_max: 100_000 };
    for script in [
        // Killed by the limit; the shell passes the signal on as an exit code.
        "head -c 1G /dev/zero > out",
        // As before, and the shell takes no notice.
        r#"head -c 1G /dev/zero > out; echo '{"ok":true}'"#,
        // Not killed by the limit, told about it only.
        r#"trap '' XFSZ; head -c 1G /dev/zero > out; echo '{"ok":true}'"#,
        // Goes on, and would never end.
        "trap '' XFSZ; head -c 1G /dev/zero > out; sleep 60",
    ] {
        let folder = Folder::new(script);
        let begun = Instant::now();
        let outcome = perform(&ProcessAgent { output_bytes_max: 100_000, ..folder.agent() }).await;
        assert_eq!(failure_of(outcome), too_long, "{script}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{script}");
    }

    // The limit itself, in blocks of 512 bytes, once it had the time to come.
    let folder = Folder::new(r#"sleep 0.1; echo "{\"ok\":true,\"facts\":{\"blocks\":$(ulimit -f)}}""#);
    let outcome = perform(&ProcessAgent { output_bytes_max: 51_200, ..folder.agent() }).await;
    assert_eq!(outcome.artifact.facts["blocks"], Scalar::Int(100), "{outcome:?}");

    let folder = Folder::new(r#"head -c 1000 /dev/zero > out; echo '{"ok":true}'"#);
    let with_max = |output_bytes_max| ProcessAgent { output_bytes_max, ..folder.agent() };
    assert_eq!(perform(&with_max(1000)).await.artifact.payload.len(), 1000);
    assert_eq!(failure_of(perform(&with_max(999)).await).kind(), FailureKind::TooLong);
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let folder = Folder::new("");
    fs::write(folder.path("plain"), "").unwrap();
    fs::write(folder.path("orphan"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(folder.path("orphan"), fs::Permissions::from_mode(0o755)).unwrap();
    for (command, said) in [
        (vec![], "the command is empty"),
        (vec!["./missing"], "is the file there"),
        (vec!["./orphan"], "the interpreter"),
        (vec!["./plain"], "chmod +x"),
        (vec!["relevo-no-such-program"], "no program `relevo-no-such-program` in PATH"),
        (vec!["./agent.sh", "nul\0"], "nul"),
    ] {
        let outcome = perform(&ProcessAgent::new(command.clone(), folder.0.path())).await;
        let failure = failure_of(outcome);
        assert_eq!(failure.kind(), FailureKind::NotStarted, "{command:?}");
        assert!(failure.to_string().contains(said), "{command:?}: {failure}");
    }
}

/// What a call costs beyond the start of its program: `cargo test --release --test process -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures, asserts nothing"]
async fn cost_of_a_call() {
    const CALLS: u32 = 1000;
    let folder = Folder::new(r#"echo '{"ok":true}'"#);
    let agent = folder.agent();
    let bare = || async {
        let mut command = tokio::process::Command::new(folder.path("agent.sh"));
        command.output().await.unwrap();
    };
    for round in 0..3 {
        let begun = Instant::now();
        for _ in 0..CALLS {
            bare().await;
        }
        let spawned = begun.elapsed() / CALLS;
        let begun = Instant::now();
        for _ in 0..CALLS {
            assert_eq!(perform(&agent).await.ending, Ending::Done);
        }
        let called = begun.elapsed() / CALLS;
        let (rate, extra) = (1.0 / called.as_secs_f64(), called.saturating_sub(spawned));
        println!("round {round}: bare {spawned:?}, call {called:?} = {rate:.0}/s, over bare {extra:?}");
    }
}
