//! The model in the box: what it can do, and that what it says depends on its prompt and seed alone.

use relevo_lm::{Completion, Continue, Finish, Level, Model, Problem, Request, Role, Split, measure};

/// A prompt on the `index`-th problem.
fn request(who: usize, index: u64, temperature: f64) -> Request {
    let level = Level::ALL[index as usize % 3];
    let mut text = Problem::generate(Split::Evaluation, level, 9, index).to_string();
    if who == 2 {
        text += "\n\n[editor]\nAnswer: B\n";
    }
    let messages = [(Role::System, measure::PROMPTS[who].1), (Role::User, &text)];
    let prompt = Model::bundled().prompt(&messages).expect("a problem");
    Request { temperature, seed: index, ..Request::new(prompt) }
}

fn said(requests: &[Request]) -> Vec<Completion> {
    let mut pieces = vec![String::new(); requests.len()];
    let said = Model::bundled().generate(requests, &mut |i, piece| {
        pieces[i] += piece;
        Continue::Yes
    });
    let texts: Vec<&String> = said.iter().map(|c| &c.text).collect();
    assert_eq!(pieces.iter().collect::<Vec<_>>(), texts, "the pieces are the text");
    said
}

/// Alone, in pairs, or among hundreds, on this thread or another: the same text, greedily and at a temperature that
/// is so high that the last bit of a probability shows.
#[test]
fn the_text_does_not_depend_on_the_company() {
    let requests: Vec<Request> =
        (0..300).map(|i| request(i as usize % 3, i, if i % 2 == 0 { 0.0 } else { 1.5 })).collect();
    let together = said(&requests);
    for size in [1, 2, 17] {
        let apart: Vec<Completion> = requests[..102].chunks(size).flat_map(said).collect();
        assert_eq!(apart, together[..102], "in batches of {size}");
    }
    let elsewhere = std::thread::spawn({
        let requests = requests.clone();
        move || said(&requests)
    });
    let here = said(&requests);
    assert_eq!(elsewhere.join().expect("the other thread"), here);
    assert_eq!(here, together);
}

#[test]
fn the_seed_decides_among_the_random() {
    let drawn = |seed| {
        let requests: Vec<Request> = (0..40).map(|i| Request { seed, ..request(1, i, 1.5) }).collect();
        said(&requests).into_iter().map(|c| c.text).collect::<Vec<String>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn an_answer_has_a_limit_and_can_be_cancelled() {
    let long = request(1, 2, 0.0);
    let whole = &said(std::slice::from_ref(&long))[0];
    assert_eq!(whole.finish, Finish::Stop);
    let short = &said(&[Request { max_tokens: 5, ..long.clone() }])[0];
    assert_eq!((short.finish, short.completion_tokens), (Finish::Length, 5));
    assert!(
        whole.text.starts_with(&short.text) || !short.text.is_empty(),
        "{} of {}",
        short.text,
        whole.text
    );
    let mut heard = 0;
    let cancelled = Model::bundled().generate(&[long.clone(), long.clone()], &mut |i, _| {
        heard += usize::from(i == 0);
        if i == 0 && heard == 2 { Continue::No } else { Continue::Yes }
    });
    assert_eq!((cancelled[0].finish, heard), (Finish::Cancelled, 2));
    assert_eq!(&cancelled[1], whole, "the other goes on");
}

/// Floors, not figures: those are in weights/README.md.
#[test]
fn the_weights_in_the_box_are_as_good_as_they_are_said_to_be() {
    let model = Model::bundled();
    assert_eq!(model.name(), "relevo-lm-1");
    let said = include_str!("../weights/README.md");
    assert!(said.contains(model.hash()), "{}", model.hash());
    for (level, at_once, in_steps, called_right) in [
        (Level::Elementary, 0.56, 0.88, 0.88),
        (Level::HighSchool, 0.44, 0.88, 0.78),
        (Level::Hard, 0.33, 0.78, 0.50),
    ] {
        let found = measure::measure(model, level, 200, 5);
        let [once, steps, checked, ..] = found.workflows;
        assert!(once >= at_once && steps >= in_steps && steps > once + 0.15, "{found:?}");
        // Of answers at once there are many that are wrong: a checker finds most of them, and they are mended.
        let checker = found.on_answers;
        assert!(checker.true_positive > called_right && checker.false_positive < 0.2, "{found:?}");
        assert!(checked > once + 0.15, "{found:?}");
    }
}

#[test]
fn weights_of_something_else_are_refused() {
    let bundled = include_bytes!("../weights/relevo-lm-1.safetensors");
    assert_eq!(Model::read(bundled).expect("the same weights").hash(), Model::bundled().hash());
    let mut other = bundled.to_vec();
    let name = other.windows(7).position(|w| w == b"unembed").expect("a matrix of that name");
    other[name] = b'U';
    for damaged in [&b""[..], b"no weights", &bundled[..bundled.len() - 2], &other] {
        assert!(Model::read(damaged).is_err());
    }
}
