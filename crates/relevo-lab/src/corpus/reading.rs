//! What texts state: facts are read out of sentences, and questions answered from nothing but these.

use std::collections::BTreeMap;

use super::{
    Class, Question,
    vocabulary::{Relation, Vocabulary},
};

/// Facts that were read: of each relation, the value by what it is said of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<Relation, BTreeMap<Vec<String>, String>>);

impl Facts {
    /// The facts that texts state in the words of a corpus; other sentences are passed over.
    pub fn read<'t>(words: &Vocabulary, texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut facts = Facts::default();
        for sentence in texts.into_iter().flat_map(|text| text.split_inclusive(". ")) {
            let stated = words.said.iter().find_map(|(of, form)| Some((*of, form.read(sentence.trim())?)));
            if let Some((relation, mut holes)) = stated {
                let value = holes.pop().expect("each form has a hole").to_owned();
                let of = holes.into_iter().map(str::to_owned).collect();
                facts.0.entry(relation).or_default().insert(of, value);
            }
        }
        facts
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A fact.
    pub fn get(&self, relation: Relation, of: &[&str]) -> Option<&str> {
        let of: Vec<String> = of.iter().map(|part| (*part).to_owned()).collect();
        self.0.get(&relation)?.get(&of).map(String::as_str)
    }

    fn number(&self, relation: Relation, of: &str) -> Option<u64> {
        self.get(relation, &[of])?.parse().ok()
    }

    /// All facts of a relation.
    fn all(&self, relation: Relation) -> impl Iterator<Item = (&[String], &str)> {
        let facts = self.0.get(&relation).into_iter().flatten();
        facts.map(|(of, value)| (of.as_slice(), value.as_str()))
    }

    /// What all events of a subject took.
    fn events(&self, subject: &str) -> impl Iterator<Item = u64> {
        let of_it = self.all(Relation::Event).filter(move |(of, _)| of[1] == subject);
        of_it.filter_map(|(_, value)| value.parse().ok())
    }

    /// The answer that follows from these facts, if one does. Of a sum, it cannot be seen whether anything is missing.
    pub fn answer(&self, question: &Question) -> Option<String> {
        let about: Vec<&str> = question.about.iter().map(String::as_str).collect();
        match (question.class, &about[..]) {
            (Class::Procedural, [procedure, subject, step]) => self.after(procedure, subject, step),
            (Class::SingleDocument, [subject]) => self.get(Relation::Number, &[subject]).map(str::to_owned),
            (Class::CrossDocument, [subject]) => {
                let owner = self.get(Relation::Owner, &[subject])?;
                self.get(Relation::Contact, &[owner]).map(str::to_owned)
            }
            (Class::Synthesis, [subject]) => {
                let sum: u64 = self.events(subject).sum();
                (sum > 0).then(|| sum.to_string())
            }
            (Class::Derivative, [subject]) => {
                let (count, each) =
                    (self.number(Relation::Count, subject)?, self.number(Relation::PerPart, subject)?);
                Some((count * each).to_string())
            }
            (Class::Mitigation, [subject, situation]) => {
                let barred = self.get(Relation::Barred, &[subject])?;
                self.get(Relation::Instead, &[situation, barred]).map(str::to_owned)
            }
            (Class::Pair, [a, b]) => {
                let [of_a, of_b] = [a, b].map(|subject| self.number(Relation::Count, subject));
                Some(if of_a? > of_b? { a } else { b }.to_string())
            }
            _ => None,
        }
    }

    /// The step after a step.
    fn after(&self, procedure: &str, subject: &str, step: &str) -> Option<String> {
        let of_it =
            self.all(Relation::Step).find(|(of, text)| of[1..] == [procedure, subject] && *text == step)?;
        let next = of_it.0[0].parse::<u32>().ok()? + 1;
        self.get(Relation::Step, &[&next.to_string(), procedure, subject]).map(str::to_owned)
    }

    /// Answers that one could take for the right one: what was once true, what another step of the way gives, and then what is
    /// true of others.
    pub fn distractors(&self, question: &Question) -> Vec<String> {
        let about: Vec<&str> = question.about.iter().map(String::as_str).collect();
        let owned = |value: Option<&str>| value.map(str::to_owned);
        let values = |relation: Relation| self.all(relation).map(|(_, value)| value.to_owned()).take(40);
        let mut near: Vec<Option<String>> = vec![];
        let mut far: Vec<String> = vec![];
        match (question.class, &about[..]) {
            (Class::Procedural, [procedure, subject, step]) => {
                let steps = self.all(Relation::Step).filter(|(of, text)| of[2] == *subject && text != step);
                let (same, other): (Vec<_>, Vec<_>) = steps.partition(|(of, _)| of[1] == *procedure);
                near.extend(same.into_iter().map(|(_, text)| Some(text.to_owned())));
                far.extend(other.into_iter().map(|(_, text)| text.to_owned()));
            }
            (Class::SingleDocument, [subject]) => {
                near.push(owned(self.get(Relation::FormerNumber, &[subject])));
                far.extend(values(Relation::Number));
            }
            (Class::CrossDocument, [subject]) => {
                let [now, then] = [Relation::Owner, Relation::FormerOwner].map(|of| self.get(of, &[subject]));
                near.push(now.and_then(|owner| owned(self.get(Relation::FormerContact, &[owner]))));
                near.push(then.and_then(|owner| owned(self.get(Relation::Contact, &[owner]))));
                far.extend(values(Relation::Contact));
            }
            (Class::Synthesis, [subject]) => {
                let events: Vec<u64> = self.events(subject).collect();
                let sum: u64 = events.iter().sum();
                near.extend(events.iter().map(|one| Some((sum - one).to_string())));
                far.extend((1..=9).map(|more| (sum + 7 * more).to_string()));
            }
            (Class::Derivative, [subject]) => {
                let of = |relation| self.number(relation, subject);
                let [count, former, each] =
                    [Relation::Count, Relation::FormerCount, Relation::PerPart].map(of);
                near.push(former.zip(each).map(|(former, each)| (former * each).to_string()));
                near.push(count.zip(each).map(|(count, each)| (count + each).to_string()));
                near.push(count.zip(each).map(|(count, each)| ((count + 1) * each).to_string()));
                far.extend((2..=9).filter_map(|n| Some((count? * n).to_string())));
            }
            (Class::Mitigation, [_, situation]) => {
                near.push(owned(self.get(Relation::FirstChoice, &[situation])));
                let others = self.all(Relation::Instead).filter(|(of, _)| of[0] == *situation);
                far.extend(others.map(|(_, action)| action.to_owned()));
            }
            (Class::Pair, [a, b]) => near.extend([a, b].map(|one| Some((*one).to_owned()))),
            // Where nothing is said, anything could be made up.
            _ => far.extend(values(Relation::Owner).chain(values(Relation::Number))),
        }
        let right = self.answer(question);
        let wrong = |list: &mut Vec<String>| {
            list.retain(|answer| Some(answer) != right.as_ref());
            list.dedup();
        };
        let mut near: Vec<String> = near.into_iter().flatten().collect();
        wrong(&mut near);
        wrong(&mut far);
        // Whoever is wrong is mostly wrong in the ways that are near.
        if near.is_empty() { far } else { near }
    }
}
