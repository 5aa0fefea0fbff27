//! The section `[tools]` of a team file: who is a tool, what is refused, and what makes another arm.

use relevo::{coordinate::coordination::Coordination, team::TeamSpec};
use relevo_core::ids::ActionId;

const TEAM: &str = r#"schema = "relevo.team/v1"
name = "t"
[simulate]
environment = "maths@1"
[coordinator]
plan = "flat"
[models.mini]
model = "m-1"
[tools.web]
url = "http://127.0.0.1:9/mcp"
key = "WEB_KEY"
allow = ["search", "fetch"]
[tools.files]
command = ["./files"]
environment = ["FILES_ROOT"]
[[agents]]
name = "web_search"
tool = "web.search"
arguments = { query = "{subproblem}", filter = ["{goal}", 3] }
[[agents]]
name = "solver"
model = "mini"
tools = ["web.fetch", "files"]
turns_max = 4
[[agents]]
name = "verifier"
command = ["./verify"]
tools = ["any label"]
"#;

fn changed(from: &str, to: &str) -> String {
    assert!(TEAM.contains(from), "{from:?}");
    TEAM.replacen(from, to, 1)
}

#[test]
fn agents_are_tools_and_models_call_them() {
    let team = TeamSpec::parse(TEAM).unwrap();
    assert_eq!(team.servers_needed().into_iter().collect::<Vec<_>>(), ["files", "web"]);
    assert_eq!(team.tools_named("web").into_iter().collect::<Vec<_>>(), ["fetch", "search"]);
    assert!(team.tools_named("files").is_empty(), "it is named as a whole");
    assert_eq!(team.agents.iter().map(|agent| agent.turns_max()).collect::<Vec<_>>(), [8, 4, 8]);
}

#[test]
fn what_makes_no_tool_is_refused_with_what_to_do() {
    let secret = "sk-taint-5f1c";
    let url = "url = \"http://127.0.0.1:9/mcp\"\n";
    let is_tool = "tool = \"web.search\"\n";
    let cases = [
        (changed("web.search", "wed.search"), 18, "did you mean \"web\"?"),
        (changed("web.search", "web.serch"), 18, "did you mean \"search\"?"),
        (changed("web.search", "web.delete"), 18, "add it to allow of [tools.web]"),
        (changed("web.search", "web"), 18, "write tool = \"server.tool\""),
        (changed("web.fetch", "web.fetsh"), 23, "did you mean \"fetch\"?"),
        (changed("{goal}", "{gaol}"), 19, "did you mean {goal}?"),
        (changed("3]", "2026-01-01]"), 19, "put it in quotes"),
        (changed(is_tool, "tool = \"web.search\"\nmodel = \"mini\"\n"), 19, "leave that or tool out"),
        (changed(is_tool, "command = [\"./x\"]\n"), 19, "add tool = \"server.tool\""),
        (changed("name = \"web_search\"", "name = \"s\"\nrole = \"solver\""), 18, "memory or web_search"),
        (changed("turns_max = 4", "turns_max = 0"), 24, "1 .. 100"),
        (changed("tools = [\"any label\"]", "turns_max = 2"), 28, "act by a model"),
        (changed(url, ""), 9, "add command = [\"program\"] or url"),
        (changed(url, "url = \"web\"\n"), 10, "no address"),
        (changed(url, &format!("{url}command = [\"./x\"]\n")), 10, "leave one of them out"),
        (changed("[\"./files\"]", "[]"), 14, "names no program"),
        (changed("environment = [\"FILES_ROOT\"]", "key = \"K\""), 15, "key is sent to a url"),
        (changed("WEB_KEY", secret), 11, "the name of a variable"),
        (changed("key = \"WEB_KEY\"", "environment = [\"K\"]"), 11, "environment is for a command"),
        (changed("[\"search\", \"fetch\"]", "[]"), 12, "leave it out for all"),
        (changed("key = \"WEB_KEY\"", "price = -1"), 11, "0 or more"),
        (changed("key = \"WEB_KEY\"", "price = nan"), 11, "finite"),
        (changed("key = \"WEB_KEY\"", "timeout_ms = 0"), 11, "timeout_ms is 0"),
        (changed("key = \"WEB_KEY\"", "result_bytes_max = 0"), 11, "result_bytes_max is 0"),
        (changed("[tools.web]", "[tools.\"we.b\"]"), 9, "rename the server"),
    ];
    for (text, line, said) in cases {
        let (at, message) = TeamSpec::parse(&text).unwrap_err();
        assert!(message.contains(said) && !message.contains("taint"), "{said}: {message}");
        assert_eq!(at, Some(line), "{message}");
    }
    let (before, agents) = TEAM.split_once("[[agents]]").unwrap();
    let none = format!("{}[[agents]]{agents}", before.split("[tools.web]").next().unwrap());
    let (_, message) = TeamSpec::parse(&none).unwrap_err();
    assert!(message.contains("add [tools.web]"), "{message}");
}

/// What results depend on makes another arm, and another run; a price another run; keys and times neither.
#[test]
fn another_tool_is_another_arm() {
    let made = |text: &str| {
        let team = TeamSpec::parse(text).unwrap();
        let coordination = Coordination::of(&team).unwrap();
        let columns: Vec<String> =
            (0..3).map(|column| coordination.column_identity(ActionId(column))).collect();
        (columns, team.config_digest(b""))
    };
    let (arms, digest) = made(TEAM);
    let [of_tool, of_model, of_program] = ["web_search#", "solver#", "verifier#"]
        .map(|name| arms.iter().position(|arm| arm.starts_with(name)).unwrap());
    let cases: [(&str, &str, &[usize], bool); 10] = [
        ("127.0.0.1:9", "127.0.0.1:8", &[of_tool, of_model], true),
        ("{subproblem}", "about {subproblem}", &[of_tool], true),
        ("tool = \"web.search\"", "tool = \"web.fetch\"", &[of_tool], true),
        ("\"web.fetch\", \"files\"", "\"web.fetch\"", &[of_model], true),
        ("turns_max = 4", "turns_max = 5", &[of_model], true),
        ("\"./files\"", "\"./files\", \"-v\"", &[of_model], true),
        ("any label", "another", &[of_program], true),
        ("key = \"WEB_KEY\"", "price = 0.1", &[], true),
        ("WEB_KEY", "OTHER_KEY", &[], false),
        ("key = \"WEB_KEY\"", "timeout_ms = 9", &[], false),
    ];
    for (from, to, others, another_run) in cases {
        let (then, digest_then) = made(&changed(from, to));
        let changed: Vec<usize> = (0..3).filter(|i| then[*i] != arms[*i]).collect();
        let mut others = others.to_vec();
        others.sort_unstable();
        assert_eq!((changed, digest_then != digest), (others, another_run), "{to}");
    }
}
