//! Answers while the request's body is still on its way.
//!
//! Responsible for: that neither side waits for the other. mod_wsgi cannot do this: it sends the whole body first. Called by: `main.rs`.

mpm_test!(a_large_answer_to_a_large_body_that_nobody_reads, |site| {
    let httpd = site.app("/", "duplex.wsgi").start();
    for _ in 0..3 {
        let answer = httpd.request("POST", "/ignore").body(vec![b'b'; 3 << 20]).send();
        assert_eq!((answer.status, answer.body.len(), answer.complete), (200, 300_000, true));
    }
});

mpm_test!(an_echo_of_a_body_larger_than_all_buffers, |site| {
    let httpd = site.app("/", "duplex.wsgi").start();
    let body: Vec<u8> = (0..8usize << 20).map(|i| (i / 4096) as u8).collect();
    let answer = httpd.request("POST", "/echo").body(body.clone()).send();
    assert!(answer.status == 200 && answer.complete && answer.body == body, "{} {}", answer.status, answer.body.len());
});

mpm_test!(each_block_is_answered_before_the_next_is_sent, |site| {
    let site = site.script(
        "pong.wsgi",
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return iter(environ['wsgi.input'].readline, b'')\n",
    );
    let httpd = site.app("/", "pong.wsgi").start();
    let mut conn = httpd.connect();
    // More than a small body, so that it is streamed.
    conn.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").expect("send");
    let line = |i: u8| [vec![b'a' + i; 70_000], b"\n".to_vec()].concat();
    let chunk = |line: &[u8]| [format!("{:x}\r\n", line.len()).into_bytes(), line.to_vec(), b"\r\n".to_vec()].concat();
    conn.send(chunk(&line(0))).expect("send");
    let mut answer = conn.answer();
    for i in 0..4u8 {
        let mut got = Vec::new();
        while got.len() < 70_001 {
            got.extend(answer.piece().expect("piece").expect("not the end"));
        }
        assert_eq!(got, line(i));
        if i < 3 {
            answer.conn().send(chunk(&line(i + 1))).expect("send");
        }
    }
    answer.conn().send("0\r\n\r\n").expect("send");
    assert!(answer.finish(false).complete);
});
