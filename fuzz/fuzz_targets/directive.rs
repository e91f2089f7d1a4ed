//! Every directive with any arguments, in every place: no panic, a refusal changes nothing, and
//! what was accepted can be merged and resolved.
#![no_main]
use libfuzzer_sys::fuzz_target;
use drover_config::resolved::{Access, Account, Credentials, FirstTime, Server, System, resolve};
use drover_config::{Context, DIRECTIVES, DirConfig, InterpreterScope, ServerConfig, Settings, Target, directive};

/// A system that has everything but users.
struct Nothing;

impl System for Nothing {
    fn user_by_name(&self, _: &[u8]) -> Option<Account> {
        None
    }
    fn user_by_id(&self, _: u32) -> Option<Account> {
        None
    }
    fn group_by_name(&self, _: &[u8]) -> Option<u32> {
        None
    }
    fn is_executable(&self, _: &[u8]) -> bool {
        true
    }
    fn is_directory(&self, _: &[u8]) -> bool {
        true
    }
    fn is_running(&self) -> bool {
        false
    }
    fn is_missing(&self, _: &[u8]) -> bool {
        false
    }
    fn cores(&self) -> u32 {
        1
    }
    fn path(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn groups_of(&self, _: &[u8], _: u32) -> Vec<u32> {
        Vec::new()
    }
    fn own(&self) -> Credentials {
        Credentials { uid: 0, gid: 0, groups: Vec::new() }
    }
    fn barrier(&self, _: &Credentials, _: &[u8], _: Access) -> Option<String> {
        None
    }
    fn python_version(&self, _: &[u8]) -> Option<(u32, u32)> {
        None
    }
    fn first_time(&self) -> FirstTime {
        FirstTime(Box::new(|| false))
    }
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        None
    }
}

fuzz_target!(|input: (u8, u8, Vec<(u8, &[u8])>)| {
    let (place, scope, lines) = input;
    let context = [Context::Server, Context::VirtualHost, Context::Directory, Context::Htaccess][usize::from(place % 4)];
    let scope = (scope == 0).then(|| InterpreterScope::parse(b"process-group=a application-group=%{GLOBAL}>").ok()).flatten();
    let (mut server, mut dir) = (ServerConfig::default(), DirConfig::default());
    for (which, raw) in lines {
        let row = &DIRECTIVES[usize::from(which) % DIRECTIVES.len()];
        assert!(directive(row.name.to_bytes()).is_some_and(|found| std::ptr::eq(found, row)));
        let before = (server.clone(), dir.clone());
        let defined = [b"other".to_vec()];
        let scope = scope.as_ref();
        let mut target = Target { server: &mut server, dir: &mut dir, context, scope, defined_groups: &defined };
        if let Err(refusal) = row.apply(&mut target, raw) {
            assert!(!refusal.to_string().is_empty());
            assert_eq!((&server.dir, &dir), (&before.0.dir, &before.1), "a refused directive wrote something: {refusal}");
            assert_eq!((&server.groups, &server.aliases, &server.imports), (&before.0.groups, &before.0.aliases, &before.0.imports));
        }
    }
    let main = Server { config: &server, name: b"main.example", is_virtual: false, log: 0, log_level: 4, sections_choose: false };
    if let Err(problem) = resolve(&[main], &Nothing) {
        assert!(!problem.to_string().is_empty());
    }
    let merged = ServerConfig::merge(&server, &ServerConfig::default());
    assert_eq!(merged.dir, server.dir);
    let _ = Settings::resolve(&merged.dir, &DirConfig::merge(&dir, &dir));
});
