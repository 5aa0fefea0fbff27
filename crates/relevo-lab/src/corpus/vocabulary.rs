//! The words of the two corpora. Both have the same shape, so that a class of tasks asks the same of a team in either.

use super::{Class, Kind, form::Form};

/// What a sentence states: of its holes, the last is the value, the others say of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// Who is responsible for a subject.
    Owner,
    /// Who was.
    FormerOwner,
    /// Where an owner is reached.
    Contact,
    /// Where an owner was reached.
    FormerContact,
    /// A number of a subject that nothing else tells.
    Number,
    /// What it was.
    FormerNumber,
    /// How many parts a subject has.
    Count,
    /// How many it had.
    FormerCount,
    /// What each part takes.
    PerPart,
    /// How much an event took, of which subject.
    Event,
    /// What must not be done to a subject.
    Barred,
    /// What to do in a situation.
    FirstChoice,
    /// What to do in it where that is barred.
    Instead,
    /// The text of a step of a procedure of a subject.
    Step,
}

/// The words of a corpus.
pub struct Vocabulary {
    /// What each document of a subject is called: its page, its notes, its two procedures, an event.
    pub titles: [Form; 5],
    /// Those of an owner and of a situation.
    pub others: [Form; 2],
    /// How each relation is stated.
    pub said: [(Relation, Form); 14],
    /// How each class asks; where there are two holes, the subject is the first, but in procedures.
    pub asked: [(Class, Form); 7],
    /// Questions that no document answers.
    pub unanswered: [Form; 4],
    /// The unit that an answer in numbers may have.
    pub unit: &'static str,
    /// Names of owners.
    pub owners: [&'static str; 10],
    /// The last word of a contact.
    pub contact: &'static str,
    /// How events are numbered.
    pub event: &'static str,
    /// The two procedures.
    pub procedures: [&'static str; 2],
    /// Steps of procedures.
    pub steps: [&'static str; 12],
    /// What must not be done to some subjects.
    pub barred: [&'static str; 3],
    /// What goes wrong.
    pub situations: [&'static str; 6],
    /// What is done about it.
    pub actions: [&'static str; 16],
    /// Sentences that state nothing.
    pub filler: [&'static str; 12],
}

/// The first halves of names of subjects.
pub(super) const FIRST: [&str; 16] = [
    "amber", "birch", "cobalt", "dune", "ember", "fjord", "garnet", "hazel", "indigo", "juniper", "kelp",
    "lotus", "maple", "nickel", "onyx", "pine",
];
/// The second halves.
pub(super) const SECOND: [&str; 10] =
    ["mail", "gateway", "ledger", "index", "cache", "billing", "search", "queue", "portal", "vault"];

impl Vocabulary {
    /// The words of a corpus.
    pub fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Incident => &INCIDENT,
            Kind::Advisory => &ADVISORY,
        }
    }

    /// How a relation is stated.
    pub fn says(&self, relation: Relation) -> Form {
        self.said.iter().find(|(of, _)| *of == relation).expect("all are stated").1
    }

    /// How a class asks.
    pub fn asks(&self, class: Class) -> Form {
        self.asked.iter().find(|(of, _)| *of == class).map_or(self.unanswered[0], |(_, form)| *form)
    }
}

static INCIDENT: Vocabulary = Vocabulary {
    titles: [
        Form("Service page: {}"),
        Form("Notes from on call: {}"),
        Form("Runbook: failover of {}"),
        Form("Runbook: restore of {}"),
        Form("Post-mortem {}: {}"),
    ],
    others: [Form("Team page: {}"), Form("Response guide: {}")],
    said: [
        (Relation::Owner, Form("{} is owned by the team {}.")),
        (Relation::FormerOwner, Form("Before the reorganisation {} was owned by the team {}.")),
        (Relation::Contact, Form("The team {} is reached in the channel {}.")),
        (Relation::FormerContact, Form("The team {} has left the channel {}.")),
        (Relation::Number, Form("{} listens on port {}.")),
        (Relation::FormerNumber, Form("In an early release {} listened on port {}.")),
        (Relation::Count, Form("{} runs on {} replicas.")),
        (Relation::FormerCount, Form("For the spring sale {} was run on {} replicas.")),
        (Relation::PerPart, Form("A replica of {} takes {} GB of memory.")),
        (Relation::Event, Form("{} hit {} and lasted {} minutes.")),
        (Relation::Barred, Form("By contract {} must not be {}.")),
        (Relation::FirstChoice, Form("Against {}, the first choice is to {}.")),
        (Relation::Instead, Form("Against {}, where a service must not be {}, the choice is to {}.")),
        (Relation::Step, Form("Step {} of the {} of {}: {}.")),
    ],
    asked: [
        (Class::Procedural, Form("In the {} of {}, which step comes right after this one: {}?")),
        (Class::SingleDocument, Form("On which port does {} listen?")),
        (Class::CrossDocument, Form("In which channel is the team reached that owns {}?")),
        (Class::Synthesis, Form("How many minutes did the incidents that hit {} last in all?")),
        (Class::Derivative, Form("How many GB of memory do all replicas of {} take together?")),
        (
            Class::Mitigation,
            Form(
                "{} suffers from {}. Which action does the response guide choose, given what must not be done to this service?",
            ),
        ),
        (Class::Pair, Form("Which of the two runs on more replicas, {} or {}?")),
    ],
    unanswered: [
        Form("Under which licence is {} published?"),
        Form("In which year was {} first deployed?"),
        Form("Which programming language is {} written in?"),
        Form("Who drew the architecture diagram of {}?"),
    ],
    unit: "(?:minutes?|gb|gb of memory)",
    owners: ["otter", "heron", "lynx", "badger", "falcon", "marten", "osprey", "weasel", "plover", "bison"],
    contact: "desk",
    event: "INC",
    procedures: ["failover", "restore"],
    steps: [
        "announce the work in the status channel",
        "drain the connections",
        "stop the writers",
        "promote the replica",
        "switch the load balancer",
        "flush the caches",
        "verify the checksums",
        "start the writers",
        "replay the journal",
        "raise the alert threshold",
        "take a snapshot",
        "rotate the credentials",
    ],
    barred: ["restarted", "rolled back", "scaled out"],
    situations: [
        "queue overflow",
        "connection exhaustion",
        "certificate expiry",
        "replication lag",
        "memory pressure",
        "clock drift",
    ],
    actions: [
        "restart the workers",
        "roll back the release",
        "add replicas",
        "shed low-priority load",
        "pause the batch jobs",
        "raise the pool limit",
        "fail over to the standby",
        "renew the certificate by hand",
        "throttle the clients",
        "rebuild the follower",
        "switch to read-only mode",
        "resize the heap",
        "drain the slow node",
        "resynchronise the clocks",
        "disable the feature flag",
        "reroute the traffic",
    ],
    filler: [
        "This page is reviewed once a quarter.",
        "Dashboards are linked from the catalogue.",
        "Questions are welcome at the weekly meeting.",
        "Capacity is planned with a margin of a third.",
        "Changes go through the usual approval.",
        "Alerts are sent to whoever is on call.",
        "Licences are tracked by procurement and are not repeated here.",
        "The history of this page is kept by the wiki.",
        "Diagrams are drawn anew after every larger change.",
        "A year of metrics is kept, then it is thinned out.",
        "Languages and libraries are chosen by each team.",
        "Numbers are checked when somebody notices that they are wrong.",
    ],
};

static ADVISORY: Vocabulary = Vocabulary {
    titles: [
        Form("Product page: {}"),
        Form("Patch notes: {}"),
        Form("Procedure: upgrade of {}"),
        Form("Procedure: rollback of {}"),
        Form("Advisory {}: {}"),
    ],
    others: [Form("Vendor page: {}"), Form("Mitigation: {}")],
    said: [
        (Relation::Owner, Form("{} is maintained by the vendor {}.")),
        (Relation::FormerOwner, Form("Before the acquisition {} was maintained by the vendor {}.")),
        (Relation::Contact, Form("The vendor {} takes reports at the address {}.")),
        (Relation::FormerContact, Form("The vendor {} no longer reads the address {}.")),
        (Relation::Number, Form("The version table lists {} as fixed since build {}.")),
        (Relation::FormerNumber, Form("A first fix of {} was withdrawn with build {}.")),
        (Relation::Count, Form("{} is installed on {} hosts.")),
        (Relation::FormerCount, Form("At the last audit {} was installed on {} hosts.")),
        (Relation::PerPart, Form("A host with {} takes {} minutes to patch.")),
        (Relation::Event, Form("{} affected {} and stayed open for {} days.")),
        (Relation::Barred, Form("By contract {} must not be {}.")),
        (Relation::FirstChoice, Form("Against {}, the recommended mitigation is to {}.")),
        (Relation::Instead, Form("Against {}, where a product must not be {}, the mitigation is to {}.")),
        (Relation::Step, Form("Step {} of the {} of {}: {}.")),
    ],
    asked: [
        (Class::Procedural, Form("In the {} of {}, which step follows directly on this one: {}?")),
        (Class::SingleDocument, Form("Since which build is {} fixed?")),
        (Class::CrossDocument, Form("At which address does the vendor take reports that maintains {}?")),
        (Class::Synthesis, Form("For how many days in all did the flaws that affected {} stay open?")),
        (
            Class::Derivative,
            Form("How many minutes does it take to patch all hosts with {}, one after the other?"),
        ),
        (
            Class::Mitigation,
            Form(
                "{} is exposed to {}. Which mitigation applies, given what must not be done to this product?",
            ),
        ),
        (Class::Pair, Form("Which of the two is installed on more hosts, {} or {}?")),
    ],
    unanswered: [
        Form("Who discovered the first flaw of {}?"),
        Form("What does a yearly subscription to {} cost?"),
        Form("Which encryption library does {} use?"),
        Form("In which year does the support of {} end?"),
    ],
    unit: "(?:minutes?|days?)",
    owners: [
        "northwind",
        "bluepeak",
        "ironleaf",
        "redharbour",
        "clearwater",
        "oakfield",
        "silverline",
        "highmoor",
        "eastgate",
        "lowtide",
    ],
    contact: "cert",
    event: "ADV",
    procedures: ["upgrade", "rollback"],
    steps: [
        "open a maintenance window",
        "export the settings",
        "stop the agents",
        "install the package",
        "migrate the database",
        "clear the module cache",
        "compare the signatures",
        "start the agents",
        "import the settings",
        "run the smoke test",
        "archive the old package",
        "close the maintenance window",
    ],
    barred: ["upgraded", "isolated", "switched off"],
    situations: [
        "request smuggling",
        "path traversal",
        "deserialisation of untrusted data",
        "privilege escalation",
        "session fixation",
        "log injection",
    ],
    actions: [
        "install the fixed build",
        "cut the network segment",
        "switch the module off",
        "normalise requests at the proxy",
        "mount the data read-only",
        "restrict the upload folder",
        "sign the serialised objects",
        "drop the set-uid bit",
        "rotate the session keys",
        "bind sessions to clients",
        "filter control characters",
        "allow-list the endpoints",
        "run the service in a sandbox",
        "remove the debug console",
        "require a second factor",
        "block the affected header",
    ],
    filler: [
        "This page is reviewed after every release.",
        "Severity is told by the usual score.",
        "Subscriptions and costs are handled by purchasing.",
        "Proofs of concept are not kept here.",
        "Hosts are counted by the inventory every night.",
        "Discoverers are thanked in the yearly report.",
        "Questions go to the security office.",
        "The end of support is announced a year ahead.",
        "Libraries are listed in the bill of materials, which is kept elsewhere.",
        "Exceptions need the word of the risk owner.",
        "Backports are listed by the vendor.",
        "Numbers are checked when somebody notices that they are wrong.",
    ],
};
