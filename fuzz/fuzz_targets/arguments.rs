//! Arguments of a directive and single values: no panic, no endless loop, nothing made up.
#![no_main]
use libfuzzer_sys::fuzz_target;
use drover_config::arguments::Arguments;
use drover_config::{DAEMON_OPTIONS, GroupOptions, scalar, suggest};

fuzz_target!(|bytes: &[u8]| {
    let (mut args, mut held, mut count) = (Arguments::new(bytes), 0, 0);
    while let Some(argument) = args.next() {
        held += argument.len();
        count += 1;
        assert!(held <= bytes.len() && count <= bytes.len(), "more came out than went in");
        let _ = (scalar::flag(&argument), scalar::whole(&argument, -20, 70_000), scalar::umask(&argument), scalar::path_list(&argument));
        let _ = (scalar::switch_interval(&argument), scalar::absolute_path(&argument), scalar::fractional_seconds(&argument, 0.0, "seconds"));
    }
    assert!(args.at_end());
    let mut args = Arguments::new(bytes);
    let mut options = GroupOptions::default();
    let mut count = 0;
    while let Some(option) = args.option() {
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
