//! Training from end to end, on a model that is too small to be of use.

use std::fs;

use relevo_lm::{
    Continue, Model, Shape,
    train::{Recipe, TrainError, WEIGHTS_FILE, train},
};

const RECIPE: Recipe = Recipe {
    shape: Shape { layers: 1, width: 16, heads: 2, hidden: 32, context: 256 },
    steps: 40,
    tokens: 400,
    every: 8,
    attempts: 12,
    glance: 4,
    measured: 4,
    seed: 7,
};

/// Interrupted and resumed, it comes to the same weights, to the bit.
#[test]
fn a_training_can_be_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (through, halted) = (folder.path().join("through"), folder.path().join("halted"));
    let report = train(&RECIPE, &through, false, &mut |_| Continue::Yes).expect("a model");
    assert_eq!((report.points.len(), report.levels.len()), (5, 3));
    assert!(report.points[4].loss < report.points[0].loss, "it learns: {:?}", report.points);
    let model = Model::load(&through.join(WEIGHTS_FILE)).expect("weights");
    assert_eq!((model.hash(), model.shape()), (report.hash.as_str(), RECIPE.shape));

    // Before the first checkpoint, after the third, and once more after no other was made.
    for stop in [5, 25, 30] {
        let stopped = train(&RECIPE, &halted, stop > 5, &mut |p| {
            if p.step < stop { Continue::Yes } else { Continue::No }
        });
        assert!(matches!(stopped, Err(TrainError::Stopped)));
    }
    let resumed = train(&RECIPE, &halted, true, &mut |_| Continue::Yes).expect("a model");
    assert_eq!((resumed.hash, &resumed.points), (report.hash, &report.points));
    assert_eq!(fs::read(halted.join(WEIGHTS_FILE)).unwrap(), fs::read(through.join(WEIGHTS_FILE)).unwrap());

    // A training is not overwritten, nor taken up where there is none.
    let again = train(&RECIPE, &halted, false, &mut |_| Continue::Yes);
    assert!(matches!(again, Err(TrainError::Occupied(_))));
    let nothing = train(&RECIPE, &folder.path().join("nothing"), true, &mut |_| Continue::Yes);
    assert!(matches!(nothing, Err(TrainError::Nothing(_))));

    // Nothing goes on from a checkpoint of another recipe, or from half of one.
    let other = Recipe { seed: 8, ..RECIPE };
    assert!(matches!(train(&other, &halted, true, &mut |_| Continue::Yes), Err(TrainError::Checkpoint(_))));
    let checkpoint = halted.join("checkpoint.safetensors");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(train(&RECIPE, &halted, true, &mut |_| Continue::Yes), Err(TrainError::Checkpoint(_))));
}
