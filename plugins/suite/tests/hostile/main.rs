//! Random and hostile input for every plugin and command: one well-formed answer, and on error no
//! change of the kernel's state and no file outside of the configuration's own folder.
//!
//! `HOSTILE_SEED=<number>` gives other cases, `HOSTILE_CASES=<number>` more of them. A failure is
//! shrunk to the fewest mutations that still fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod files;
mod input;
#[path = "../node/mod.rs"]
mod node;
mod snapshot;
mod values;
mod world;

use input::{Case, Input, case};
use node::node;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use protocol::AddResult;
use protocol::version::{ALL, Version};
use serde_json::Value;
use world::{Ended, World};

const SEED: u64 = 1;
const CASES: u32 = 200;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

#[test]
fn hostile_input_gets_one_answer_and_changes_nothing() {
    let seed = number("HOSTILE_SEED", SEED);
    let config = Config {
        cases: u32::try_from(number("HOSTILE_CASES", CASES.into())).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    node(|node| {
        let Some(world) = World::new(node) else {
            return;
        };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&case(), |case| {
            holds(&world, &case).map_err(TestCaseError::fail)
        });
        if let Err(error) = outcome {
            panic!("HOSTILE_SEED={seed}: {error}");
        }
    });
}

/// Runs one case, after a good ADD and before a good DEL if it says so.
fn holds(world: &World<'_>, case: &Case) -> Result<(), String> {
    let Some(add) = case.before(world) else {
        return tried(world, &case.build(world));
    };
    let before = world.snapshot();
    // What this kernel has no devices for fails, and is then as if it were not attached.
    let attached = answer_of(world, &add)?.status == 0;
    let outcome = if attached && matches!(&*case.build(world).command, b"DEL" | b"GC") {
        // May remove all, some or nothing of what is there; what it leaves, the next DEL removes.
        answer_of(world, &case.build(world)).map(drop)
    } else {
        tried(world, &case.build(world))
    };
    let problem = |problem: String| format!("{problem}\nafter {add}\nbefore {}", case.build(world));
    outcome
        .and_then(|()| world.delete(&add, &before))
        .map_err(problem)
}

/// Runs `input` and says what does not hold of its answer and of the files.
fn answer_of(world: &World<'_>, input: &Input) -> Result<Ended, String> {
    let ended = world.run(input)?;
    answered(&ended, &input.command)
        .and_then(|()| world.check_files(input))
        .map_err(|problem| format!("{problem}: {input}\n-> {ended}"))?;
    Ok(ended)
}

/// Runs `input`, which changes nothing unless it is an ADD that succeeds.
fn tried(world: &World<'_>, input: &Input) -> Result<(), String> {
    let before = world.snapshot();
    let ended = answer_of(world, input)?;
    let after = world.snapshot();
    if before == after {
        return Ok(());
    }
    let outcome = if ended.status == 0 {
        world.clean_up(input, &before)
    } else {
        world.remove_shared(&before).and_then(|()| {
            let after = world.snapshot();
            let change = before.difference(&after);
            let same = before == after;
            same.then_some(())
                .ok_or_else(|| format!("failed, but changed {change}"))
        })
    };
    outcome.map_err(|problem| format!("{problem}: {input}\n-> {ended}"))
}

/// Whether exit status and standard output are what the specification says.
fn answered(ended: &Ended, command: &[u8]) -> Result<(), String> {
    if !matches!(ended.status, 0 | 1) || ended.stderr.contains("panicked") {
        return Err("did not end as a plugin does".to_owned());
    }
    let document = match ended.stdout.trim() {
        "" => None,
        text => Some(serde_json::from_str::<Value>(text).map_err(|e| format!("no JSON: {e}"))?),
    };
    match (ended.status, command, document) {
        (0, b"ADD", Some(result)) => AddResult::decode(&result, Version::V110)
            .map(drop)
            .map_err(|error| format!("no result: {error}")),
        (0, b"VERSION", Some(versions)) => {
            let all = ALL.map(Version::as_str);
            let same = versions["supportedVersions"] == serde_json::json!(all);
            same.then_some(()).ok_or("other versions".to_owned())
        }
        (0, b"DEL" | b"CHECK" | b"GC" | b"STATUS" | b"", None) => Ok(()),
        (1, _, Some(error)) => is_error(&error),
        _ => Err("the answer has not the form of the command's".to_owned()),
    }
}

fn is_error(error: &Value) -> Result<(), String> {
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    let version = Version::find(text("cniVersion"));
    let code = error["code"].as_u64().unwrap_or(0);
    let words = text("msg").split_whitespace().count();
    if version.is_none() || code == 0 || words < 2 {
        return Err("no error of the specification's form".to_owned());
    }
    if code == 6 && text("details").is_empty() && words < 4 {
        return Err("the error does not say what cannot be decoded".to_owned());
    }
    Ok(())
}
