//! The promise: a process killed at any moment while it saves leaves a complete checkpoint.
//!
//! This test runs itself as a child process that saves checkpoints without pause, kills it at random moments and looks at
//! what is on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use shadegrad::io::{Checkpoint, HostTensor};

const PLACE: &str = "SHADEGRAD_CHECKPOINT_KILL_PATH";
const KILLS: usize = 40;
const TENSORS: usize = 12;
const ELEMENTS: usize = 6_007;

/// A checkpoint of which every part says `generation`.
fn checkpoint(generation: u64) -> Checkpoint {
    let mut c =
        Checkpoint { step: generation, epoch: generation, seed: u64::MAX - generation, ..Checkpoint::default() };
    c.order.position = generation;
    for i in 0..TENSORS {
        let tensor = HostTensor::from_u32(&[ELEMENTS], &vec![generation as u32; ELEMENTS]).unwrap();
        c.model.tensors.insert(format!("layer{i}.weight"), tensor.clone());
        c.optim.tensors.insert(format!("layer{i}.weight.m"), tensor);
    }
    c.notes.insert("generation".into(), generation.to_string());
    c
}

/// The checkpoint's generation, after a look at every element of it.
fn generation(checkpoint: &Checkpoint) -> u64 {
    assert!(*checkpoint == self::checkpoint(checkpoint.step), "parts of different saves at step {}", checkpoint.step);
    checkpoint.step
}

/// The child's part; does nothing unless it is told where.
#[test]
#[ignore = "runs until it is killed; `a_kill_leaves_a_complete_checkpoint` starts it"]
fn save_forever() {
    let Some(path) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let done = generation(&Checkpoint::load_latest(&path).unwrap());
    for generation in done + 1.. {
        checkpoint(generation).save(&path).unwrap();
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "save_forever", "--nocapture"])
        .env(PLACE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// When the file was last written; `None` while it is not there, as between two renames where there are no hard links.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

#[test]
fn a_kill_leaves_a_complete_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let previous = Checkpoint::previous(&path).unwrap();
    let partial = folder.path().join("run.safetensors.partial");
    checkpoint(1).save(&path).unwrap();

    let mut last = 1;
    let mut mid_save = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for kill in 0..KILLS {
        let before = modified(&path);
        let mut child = start(&path);
        // Once it saves, a moment more: from none to some saves' time, to the microsecond.
        let patience = Instant::now() + Duration::from_secs(60);
        while modified(&path).is_none_or(|now| before == Some(now)) {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself before kill {kill}");
            assert!(Instant::now() < patience, "the child does not save");
            std::thread::sleep(Duration::from_micros(200));
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 25_000));
        child.kill().unwrap();
        child.wait().unwrap();

        mid_save += usize::from(partial.exists());
        let now = generation(&Checkpoint::load_latest(&path).unwrap());
        assert!(now > last, "kill {kill}: generation {now} after {last}");
        last = now;
        // Under neither name is there ever anything else than a complete checkpoint.
        for name in [&path, &previous] {
            if name.exists() {
                let kept = generation(&Checkpoint::load(name).unwrap());
                assert!(kept == now || kept + 1 == now, "kill {kill}: {} is {kept}, not {now}", name.display());
            }
        }
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() <= 4, "strays pile up: {names:?}");
    }
    assert!(mid_save > 0, "none of {KILLS} kills came in the middle of a save: this test has seen nothing");

    // The strays are gone after one undisturbed save.
    checkpoint(last + 1).save(&path).unwrap();
    assert_eq!(generation(&Checkpoint::load(&path).unwrap()), last + 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
