use proptest::prelude::*;

use super::*;

fn h100() -> Profile {
    shipped("h100-llama-8b").expect("shipped")
}

#[test]
#[ignore = "writes the profiles anew: run it after a change of the model, and look at what changed"]
fn refit() {
    for name in shipped_names().filter(|name| !name.starts_with("cpu")) {
        let started = std::time::Instant::now();
        let fitted = fit(&shipped(name).expect("shipped"));
        println!("{name}: {:?} {:?} {:.1} s", fitted.fitted, fitted.figures, started.elapsed().as_secs_f64());
        std::fs::write(format!("profiles/{name}.toml"), fitted.to_toml()).expect("written");
    }
}

proptest! {
    #[test]
    fn more_of_anything_never_takes_less_time(
        runs in prop::collection::vec((1_usize..600, 0_usize..4000), 1..40),
        which in any::<prop::sample::Index>(),
    ) {
        let profile = h100();
        let time = |runs: &[(usize, usize)]| profile.step_time_us(&runs.iter().copied().collect());
        let base = time(&runs);
        let at = which.index(runs.len());
        let mut longer = runs.clone();
        longer[at].0 += 1;
        let mut deeper = runs.clone();
        deeper[at].1 += 100;
        let more = [&runs[..], &[(1, 0)]].concat();
        for other in [longer, deeper, more] {
            prop_assert!(time(&other) >= base);
        }
    }
}
