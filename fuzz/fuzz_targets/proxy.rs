//! Headers of proxies and the networks they are compared with: no panic, and nothing but an entry
//! of the header is taken for the client.
#![no_main]
use libfuzzer_sys::fuzz_target;
use drover_config::proxy::{proxy_header, trusted};
use drover_config::{Network, PROXY_HEADERS};
use drover_config::proxy::forwarded_for;

fuzz_target!(|input: (Vec<&[u8]>, &[u8])| {
    let (networks, value) = input;
    let networks: Vec<Network> = networks.into_iter().filter_map(|text| Network::parse(text).ok()).collect();
    if let Some(header) = proxy_header(value) {
        assert!(PROXY_HEADERS.iter().any(|known| std::ptr::eq(known, header)));
    }
    for list in [None, Some(&networks[..])] {
        let (client, rest) = forwarded_for(value, list);
        if let Some(client) = &client {
            assert!(!client.is_empty() && !client.contains(&b','));
            assert!(value.split(|b| *b == b',').any(|entry| entry.trim_ascii() == client), "the client is an entry of the header");
        }
        if let Some(rest) = rest {
            let client = client.expect("what remains begins with the client");
            assert!(rest.starts_with(&client));
            // Behind the client stand trusted proxies only.
            let behind = rest.split(|b| *b == b',').skip(1).map(|e| str::from_utf8(e.trim_ascii()).expect("an address"));
            assert!(behind.into_iter().all(|e| trusted(&networks, e.parse().expect("an address"))));
        }
    }
});
