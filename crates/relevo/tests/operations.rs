//! Operations of an agent that acts by a model: each with a skill card and a temperature of its own.

use std::fs;

use relevo::{
    evaluate::{Chooser, walk},
    reward::Usual,
    stage::{Scene, Stage},
    team::TeamSpec,
};
use relevo_core::{
    ids::{ActionId, AgentId, OperationId},
    observation::Observation,
};
use tempfile::TempDir;

const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "one"
start = "editor"
[problems]
levels = ["hard"]
[models.box]
provider = "relevo-lm"
model = "relevo-lm-1"
[[agents]]
name = "editor"
model = "box"
reply = "append"
skill = "answer.md"
operations = ["answer", { name = "steps", skill = "steps.md" }, { name = "warm", skill = "steps.md", temperature = 2.0 }]
observes = ["dataset"]
handoffs = ["finish"]
"#;

/// Always this operation, and then the end.
struct Always(u32);

impl Chooser for Always {
    fn operation(&mut self, _: AgentId, _: &Observation) -> Option<OperationId> {
        Some(OperationId(self.0))
    }

    fn successor(&mut self, _: &Scene<'_>, _: AgentId, _: AgentId, o: &Observation) -> Option<ActionId> {
        o.legal.first()
    }
}

fn load(text: &str) -> Result<(TempDir, TeamSpec), String> {
    let folder = TempDir::new().unwrap();
    let card = |text: &str| format!("---\nname: card\ndescription: d\nversion: \"1\"\n---\n{text}\n");
    fs::write(folder.path().join("answer.md"), card("Answer with the letter.")).unwrap();
    fs::write(folder.path().join("steps.md"), card("Work it out step by step.")).unwrap();
    fs::write(folder.path().join("team.toml"), text).unwrap();
    let team = TeamSpec::load(&folder.path().join("team.toml")).map_err(|e| e.to_string())?;
    Ok((folder, team))
}

#[tokio::test]
async fn each_operation_is_asked_for_in_its_own_way() {
    let (folder, team) = load(TEAM).unwrap();
    let stage = Stage::new(team, folder.path(), None).unwrap();
    let mut said = vec![];
    for operation in 0..3 {
        let mut texts = vec![];
        for number in 0..5 {
            let task = stage.tasks().evaluation(number).unwrap().unwrap();
            let question = task.artifact.payload.len();
            let chooser = &mut Always(operation);
            let way = walk(&stage, &mut stage.guard(), task, 0, Usual::default(), chooser).await.unwrap();
            texts.push(String::from_utf8(way.artifact.payload[question..].to_vec()).unwrap());
        }
        said.push(texts);
    }
    assert!(said[0].iter().all(|text| !text.contains('=') && text.contains("Answer: ")), "{said:?}");
    assert!(said[1].iter().all(|text| text.contains('=') && text.contains("Answer: ")), "{said:?}");
    assert_ne!(said[1], said[2], "other words at a temperature of 2");
}

#[test]
fn operations_that_nobody_could_perform_are_refused() {
    for (from, to, part) in [
        ("\"answer\", {", "\"steps\", {", "has the operation \"steps\" twice"),
        ("temperature = 2.0", "temperature = 3.0", "not in 0 .. 2"),
        ("skill = \"steps.md\" },", "skill = \"none.md\" },", "skill \"none.md\": it cannot be read"),
        ("\"answer\", {", "\"a b\", {", "is no name"),
        ("temperature = 2.0", "warmth = 2.0", "an operation is a name, or { name"),
        ("model = \"box\"\nreply = \"append\"\nskill = \"answer.md\"", "command = [\"./x\"]", "acts by none"),
    ] {
        assert!(TEAM.contains(from));
        let told = load(&TEAM.replacen(from, to, 1)).err().unwrap_or_default();
        assert!(told.contains(part), "{to}: {told}");
    }
    let other = |team: TeamSpec| team.config_digest(b"");
    let (changed, whole) = (TEAM.replace("2.0", "1.0"), load(TEAM).unwrap().1);
    assert_ne!(other(load(&changed).unwrap().1), other(whole), "what is learned is of these operations");
}
