//! Words of a configuration line and single values: no panic, no endless loop, nothing made up.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mod_drover::config::words::Words;
use mod_drover::config::{DAEMON_OPTIONS, GroupOptions, scalar, suggest};

fuzz_target!(|bytes: &[u8]| {
    let (mut words, mut held, mut count) = (Words::new(bytes), 0, 0);
    while let Some(word) = words.word() {
        held += word.len();
        count += 1;
        assert!(held <= bytes.len() && count <= bytes.len(), "more came out than went in");
        let _ = (scalar::flag(&word), scalar::whole(&word, -20, 70_000), scalar::umask(&word), scalar::path_list(&word));
        let _ = (scalar::switch_interval(&word), scalar::absolute_path(&word), scalar::fractional_seconds(&word, 0.0, "seconds"));
    }
    assert!(words.at_end());
    let mut words = Words::new(bytes);
    let mut options = GroupOptions::default();
    let mut count = 0;
    while let Some(option) = words.option() {
        count += 1;
        assert!(count <= bytes.len(), "no end of options");
        let Ok((name, value)) = option else { continue };
        assert!(!name.is_empty() && !name.contains(&b'='));
        match DAEMON_OPTIONS.iter().find(|o| o.name.as_bytes() == name) {
            Some(known) => {
                let _ = known.take.read(&mut options, &value);
            }
            None if name.len() < 64 => {
                let _ = suggest::nearest(&name, DAEMON_OPTIONS.iter().map(|o| o.name.as_bytes()));
            }
            None => {}
        }
    }
});
