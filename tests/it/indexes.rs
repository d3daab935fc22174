//! Indexes of a live table: built behind queries and ingestion, used where they help, whole again after kill -9.

use std::{fs, path::Path, time::Duration};

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// Files below a directory whose names end like this.
fn files(below: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A table of sealed segments of 5,000 rows each, and some rows that are not sealed.
fn fill(server: &Server, segments: usize) {
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, city TEXT, code BIGINT) WITH (seal_rows = 5000)");
    for segment in 0..segments {
        let from = segment * 5000;
        server.sql(&format!(
            "INSERT INTO t SELECT i, 'city ' || (i % 400), (i * 7919) % 1000003 FROM generate_series({from}, {}) AS g(i)",
            from + 4999
        ));
    }
    server.sql("SELECT rt.seal('t')");
    server.sql("INSERT INTO t VALUES (-1, 'city 7', 5)");
}

const CONDITIONS: [&str; 4] = [
    "city = 'city 7'",
    "code = 7919",
    "city IN ('city 7', 'city 8') AND code < 50000",
    "code BETWEEN 1000 AND 2000 OR city LIKE 'city 39%'",
];

/// The same answers with and without indexes.
fn agree(server: &Server) {
    for condition in CONDITIONS {
        let answer = |indexes: &str| {
            server.value(&format!(
                "SET rt.use_indexes = '{indexes}'; SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM t WHERE {condition}"
            ))
        };
        let plain = answer("off");
        assert_eq!(answer("on"), plain, "{condition}");
        assert_eq!(answer("always"), plain, "{condition}");
    }
}

fn explained(server: &Server, sql: &str) -> String {
    server.sql(sql).into_iter().map(|row| row[0].clone().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_index_is_built_behind_queries_and_survives_kill_9_in_the_middle() {
    // One percent of a processor: a build takes a hundred times as long as it works.
    let mut server = Server::start_with(BINARY, &["--index-cpu", "1"]);
    fill(&server, 12);
    server.sql("CREATE INDEX ON t USING inverted (city)");
    server.sql("CREATE INDEX ON t USING range (code)");
    server.wait_for(
        r#"SELECT segments_built BETWEEN 1 AND 11 AND state = 'building' FROM rt.indexes WHERE "index" = 't_city_inverted'"#,
        "t",
        Duration::from_secs(60),
    );
    agree(&server);
    // What a kill in the middle of a file leaves.
    let some = files(&server.data_dir, ".index").pop().unwrap();
    server.kill_9();
    fs::write(some.with_extension("index.tmp"), b"half").unwrap();
    fs::write(&some, b"damaged").unwrap();
    fs::write(some.with_file_name("s00000000000000000000.99.index"), b"of an index that is no more").unwrap();
    server.spawn();
    server.wait_ready();
    agree(&server);
    server.wait_for("SELECT bool_and(state = 'ready' AND progress = 1) FROM rt.indexes", "t", Duration::from_secs(400));
    assert_eq!(server.value("SELECT sum(segments_built) || ' of ' || sum(segments_total) FROM rt.indexes"), "24 of 24");
    agree(&server);
    assert_eq!(files(&server.data_dir, ".index").len(), 24);
    assert!(files(&server.data_dir, ".tmp").is_empty());
    assert!(server.log().contains("an index is built again"), "the damaged file is named");

    // New segments have theirs at once, and they outlive a restart without a build.
    server.sql("SELECT rt.seal('t')");
    assert_eq!(server.value("SELECT min(segments_built) FROM rt.indexes"), "13");
    server.kill_and_restart();
    assert_eq!(server.value("SELECT min(segments_built) FROM rt.indexes"), "13");
    agree(&server);

    server.sql("DROP INDEX t_city_inverted");
    assert_eq!(files(&server.data_dir, ".index").len(), 13);
    agree(&server);
    server.sql("DROP TABLE t");
    assert!(files(&server.data_dir, ".index").is_empty());
    assert_eq!(server.value("SELECT count(*) FROM rt.indexes"), "0");
    server.stop();
}

#[test]
fn explain_names_indexes_and_counts_what_they_save() {
    let server = Server::start(BINARY);
    fill(&server, 3);
    let query = "SELECT id FROM t WHERE code = 7919";
    let plain = explained(&server, &format!("EXPLAIN ANALYZE {query}"));
    assert!(!plain.contains("indexes=") && !plain.contains("bloom") && !plain.contains("rows_by_index"), "{plain}");
    server.sql("CREATE INDEX ON t USING range (code)");
    server.sql("CREATE INDEX t_bloom ON t USING bloom (code)");
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60));
    // The value is in one of the segments.
    let plan = explained(&server, &format!("SET rt.use_indexes = 'always'; EXPLAIN ANALYZE {query}"));
    assert!(plan.contains("indexes=[t_code_range, t_bloom]"), "{plan}");
    assert!(plan.contains("pruned_by_bloom=2") && plan.contains("rows_by_index=1"), "{plan}");
    let grouped =
        explained(&server, "SET rt.use_indexes = 'always'; EXPLAIN ANALYZE SELECT count(*) FROM t WHERE code < 100");
    assert!(grouped.contains("SegmentAggregateExec") && grouped.contains("indexes=[t_code_range]"), "{grouped}");
    assert!(grouped.contains("rows_by_index="), "{grouped}");
    let off = explained(&server, &format!("SET rt.use_indexes = off; EXPLAIN ANALYZE {query}"));
    assert!(off.contains("pruned_by_bloom=0") && !off.contains("rows_by_index") && !off.contains("indexes="), "{off}");
}

#[test]
fn rows_are_sorted_when_they_are_sealed() {
    let mut server = Server::start(BINARY);
    fill(&server, 2);
    server.sql("SELECT rt.seal('t')");
    server.sql("CREATE INDEX ON t USING sorted (city, id)");
    let state = "SELECT state || ' ' || segments_built || ' of ' || segments_total || ' ' || columns || ' ' || bytes FROM rt.indexes";
    assert_eq!(server.value(state), "partial 1 of 3 city, id 0", "one segment has one row, which is in order");
    let second = server.try_sql("CREATE INDEX ON t USING sorted (id)").unwrap_err();
    let second = second.as_db_error().unwrap();
    assert_eq!(second.code().code(), "42P16");
    assert_eq!(second.message(), "table \"t\" is sorted by index \"t_city_id_sorted\" already");
    assert!(second.hint().unwrap().contains("DROP INDEX t_city_id_sorted"), "{second:?}");
    agree(&server);
    server.sql(
        "INSERT INTO t SELECT i, 'city ' || (i % 400), (i * 7919) % 1000003 FROM generate_series(50000, 54999) AS g(i)",
    );
    server.sql("INSERT INTO t VALUES (60000, NULL, 1)");
    server.sql("SELECT rt.seal('t')");
    agree(&server);
    let explain = |settings: &str| {
        let select = "SELECT sum(code) FROM t WHERE city = 'city 7'";
        explained(&server, &format!("SET rt.use_indexes = '{settings}'; EXPLAIN ANALYZE {select}"))
    };
    // 13 or 12 rows of the new segment, and one alone: the others are scanned.
    let plan = explain("on");
    assert!(plan.contains("indexes=[t_city_id_sorted], sorted(city)=") && plan.contains(" of 4"), "{plan}");
    assert!(plan.contains("rows_by_index="), "{plan}");
    let plan = explain("off");
    assert!(!plan.contains("sorted") && !plan.contains("rows_by_index"), "{plan}");
    assert_eq!(
        server.value("SELECT indexdef FROM pg_indexes"),
        "CREATE INDEX t_city_id_sorted ON public.t USING sorted (city, id)"
    );
    let before = server.value(state);
    server.kill_9();
    server.spawn();
    server.wait_ready();
    assert_eq!(server.value(state), before);
    agree(&server);
    // Rows that come later are in the order of what is asked for then.
    server.sql("DROP INDEX t_city_id_sorted");
    server.sql("CREATE INDEX by_code ON t USING sorted (code)");
    server.sql(
        "INSERT INTO t SELECT i, 'city ' || (i % 400), (i * 7919) % 1000003 FROM generate_series(70000, 74999) AS g(i)",
    );
    server.sql("SELECT rt.seal('t')");
    agree(&server);
    server.stop();
}

#[test]
fn documents_are_found_by_their_index() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, doc JSONB) WITH (seal_rows = 5000)");
    let insert = |from: u32| {
        server.sql(&format!(
            "INSERT INTO t SELECT i, jsonb_build_object('city', 'city ' || (i % 400), 'n', i % 1000, 'tags', jsonb_build_array('t' || (i % 30)))
             FROM generate_series({from}, {}) AS g(i)",
            from + 4999
        ));
    };
    insert(0);
    server.sql("SELECT rt.seal('t')");
    server.sql("CREATE INDEX ON t USING json (doc)");
    insert(5000);
    server.sql("SELECT rt.seal('t')");
    server.wait_for("SELECT state || segments_built FROM rt.indexes", "ready2", Duration::from_secs(60));
    server.sql("INSERT INTO t VALUES (-1, '{\"city\": \"city 7\", \"n\": 7}')");
    for condition in [
        "doc->>'city' = 'city 7'",
        "doc->>'city' IN ('city 7', 'city 8') AND (doc->>'n')::numeric < 100",
        "doc @> '{\"tags\": [\"t3\"], \"n\": 33}'",
        "(doc->>'n')::numeric BETWEEN 10 AND 12 OR doc->>'city' = 'city 399'",
        "doc ? 'city' AND doc->>'city' = 'city 9'",
        "doc->'tags' IS NOT NULL AND doc->>'n' = '5'",
    ] {
        let ask = |indexes: &str, sql: &str| {
            explained(&server, &format!("SET rt.use_indexes = '{indexes}'; {sql} WHERE {condition}"))
        };
        let select = "SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM t";
        let plain = ask("off", select);
        assert_eq!(ask("on", select), plain, "{condition}");
        assert_eq!(ask("always", select), plain, "{condition}");
        let plan = ask("on", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(plan.contains("indexes=[t_doc_json]") && plan.contains("rows_by_index="), "{condition}: {plan}");
        let plan = ask("off", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(!plan.contains("indexes=") && !plan.contains("rows_by_index"), "{condition}: {plan}");
    }
    // Values that come with the execution.
    let found = crate::support::server::runtime().block_on(async {
        let client = crate::support::server::connect(server.pg_port).await.unwrap();
        let statement = client.prepare("SELECT count(*) FROM t WHERE doc->>'city' = $1").await.unwrap();
        let mut found = Vec::new();
        for city in ["city 7", "nowhere", "city 8"] {
            found.push(client.query_one(&statement, &[&city]).await.unwrap().get::<_, i64>(0));
        }
        found
    });
    assert_eq!(found, [26, 0, 25]);
    server.kill_and_restart();
    assert_eq!(server.value("SELECT state || segments_built FROM rt.indexes"), "ready2");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE doc->>'city' = 'city 7'"), "26");
    server.stop();
}

#[test]
fn words_are_found_by_their_index() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, level TEXT, msg TEXT) WITH (seal_rows = 5000)");
    let insert = |from: u32| {
        server.sql(&format!(
            "INSERT INTO t SELECT i, CASE i % 4 WHEN 0 THEN 'WARN' ELSE 'info' END,
                    CASE WHEN i % 50 <> 0 THEN 'Request ' || (i * 7919 % 100003) || ' to host' || (i % 400) || ' took ' || (i % 90) || ' ms' END
             FROM generate_series({from}, {}) AS g(i)",
            from + 4999
        ));
    };
    insert(0);
    server.sql("SELECT rt.seal('t')");
    server.sql("CREATE INDEX ON t USING text (msg)");
    insert(5000);
    server.sql("SELECT rt.seal('t')");
    server.wait_for("SELECT state || segments_built FROM rt.indexes", "ready2", Duration::from_secs(60));
    server.sql("INSERT INTO t VALUES (-1, 'WARN', 'request 5 to host7')");
    for condition in [
        "msg @@ 'host7'",
        "msg @@ 'host7' AND level = 'WARN'",
        "to_tsvector('simple', msg) @@ to_tsquery('host7 & 77 | host399')",
        "to_tsvector(msg) @@ to_tsquery('host39:* & !host399 & !77')",
        "to_tsvector(msg) @@ phraseto_tsquery('to host8 took')",
        "msg @@ websearch_to_tsquery('\"took 3\" -host93')",
        "NOT msg @@ to_tsquery('request & 77')",
        "msg @@ 'host7' OR level = 'none' OR msg @@ 'host9'",
    ] {
        let ask = |indexes: &str, sql: &str| {
            explained(&server, &format!("SET rt.use_indexes = '{indexes}'; {sql} WHERE {condition}"))
        };
        let select = "SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM t";
        let plain = ask("off", select);
        assert_eq!(ask("on", select), plain, "{condition}");
        assert_eq!(ask("always", select), plain, "{condition}");
        let plan = ask("on", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(plan.contains("indexes=[t_msg_text]") && plan.contains("rows_by_index="), "{condition}: {plan}");
        assert!(!plan.contains("FilterExec"), "{condition}: {plan}");
        let plan = ask("off", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(!plan.contains("t_msg_text") && !plan.contains("rows_by_index"), "{condition}: {plan}");
    }
    // Values that come with the execution.
    let found = crate::support::server::runtime().block_on(async {
        let client = crate::support::server::connect(server.pg_port).await.unwrap();
        let mut found = Vec::new();
        for (sql, asked) in [
            ("SELECT count(*) FROM t WHERE msg @@ $1", ["host7", "nowhere", "5 host7"]),
            ("SELECT count(*) FROM t WHERE to_tsvector(msg) @@ to_tsquery($1)", ["host7 | host8", "!took", ""]),
            ("SELECT count(*) FROM t WHERE to_tsvector(msg) @@ $1", ["host7 <-> took", "'host8'", "request & !took"]),
        ] {
            let statement = client.prepare(sql).await.unwrap();
            for asked in asked {
                found.push(client.query_one(&statement, &[&asked]).await.unwrap().get::<_, i64>(0));
            }
        }
        let statement = client.prepare("SELECT count(*) FROM t WHERE msg @@ to_tsquery($1)").await.unwrap();
        let error = client.query_one(&statement, &[&"host7 &"]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42601");
        found
    });
    assert_eq!(found, [26, 0, 1, 51, 1, 0, 25, 25, 1]);
    server.kill_and_restart();
    assert_eq!(server.value("SELECT state || segments_built FROM rt.indexes"), "ready2");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE msg @@ 'host7'"), "26");
    server.sql("DROP INDEX t_msg_text");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE msg @@ 'host7'"), "26");
    server.stop();
}

#[test]
fn places_are_found_by_their_index() {
    let mut server = Server::start(BINARY);
    server
        .sql("CREATE TABLE t (id BIGINT NOT NULL, lat DOUBLE PRECISION, lng DOUBLE PRECISION) WITH (seal_rows = 5000)");
    let insert = |from: u32| {
        server.sql(&format!(
            "INSERT INTO t SELECT i, 52 + (i * 7919 % 10007) / 10007.0, 13 + (i * 104729 % 10009) / 10009.0 FROM generate_series({from}, {}) AS g(i)",
            from + 4999
        ));
    };
    insert(0);
    server.sql("SELECT rt.seal('t')");
    server.sql("CREATE INDEX ON t USING geo (lat, lng)");
    insert(5000);
    server.sql("SELECT rt.seal('t')");
    server.wait_for("SELECT state || segments_built FROM rt.indexes", "ready2", Duration::from_secs(60));
    server.sql("INSERT INTO t VALUES (-1, 52.5, 13.5), (-2, 52.5, NULL), (-3, 152.5, 13.5)");
    for condition in [
        "geo_distance(lat, lng, 52.5, 13.5) < 2000",
        "geo_distance(lat, lng, 52.5, 13.5) BETWEEN 500 AND 3000 AND id > 100",
        "geo_within(lat, lng, 'POLYGON((13.3 52.4, 13.5 52.4, 13.4 52.6, 13.3 52.4))')",
        "geo_distance(52.1, 13.1, lat, lng) < 2000 OR geo_distance(lat, lng, 52.9, 13.9) <= 1500",
    ] {
        let ask = |indexes: &str, sql: &str| {
            explained(&server, &format!("SET rt.use_indexes = '{indexes}'; {sql} WHERE {condition}"))
        };
        let select = "SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM t";
        let plain = ask("off", select);
        // By a condition of which the scan knows nothing.
        let whole = server.value(&format!("{select} WHERE CASE WHEN {condition} THEN true END"));
        assert_eq!(plain, whole, "{condition}");
        assert_eq!(ask("on", select), plain, "{condition}");
        assert_eq!(ask("always", select), plain, "{condition}");
        let plan = ask("on", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(plan.contains("places_by=[t_lat_lng_geo]") && plan.contains("rows_by_index="), "{condition}: {plan}");
        let plan = ask("off", "EXPLAIN ANALYZE SELECT sum(id) FROM t");
        assert!(!plan.contains("places_by") && !plan.contains("rows_by_index"), "{condition}: {plan}");
    }
    // Values that come with the execution.
    let found = crate::support::server::runtime().block_on(async {
        let client = crate::support::server::connect(server.pg_port).await.unwrap();
        let mut found = Vec::new();
        let statement =
            client.prepare("SELECT count(*) FROM t WHERE geo_distance(lat, lng, 52.5, 13.5) < $1").await.unwrap();
        for metres in [-1.0, 0.1, 1e8] {
            found.push(client.query_one(&statement, &[&metres]).await.unwrap().get::<_, i64>(0));
        }
        let none: Option<f64> = None;
        found.push(client.query_one(&statement, &[&none]).await.unwrap().get::<_, i64>(0));
        let statement = client
            .prepare("SELECT count(*) FROM t WHERE geo_distance(lat, lng, $1::float8, $2::float8) < 0.1")
            .await
            .unwrap();
        for lng in [13.5, 14.5] {
            found.push(client.query_one(&statement, &[&52.5, &lng]).await.unwrap().get::<_, i64>(0));
        }
        found
    });
    assert_eq!(found, [0, 1, 10001, 0, 1, 0]);
    server.kill_and_restart();
    assert_eq!(server.value("SELECT state || segments_built FROM rt.indexes"), "ready2");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE geo_distance(lat, lng, 52.5, 13.5) < 0.1"), "1");
    server.sql("DROP INDEX t_lat_lng_geo");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE geo_distance(lat, lng, 52.5, 13.5) < 0.1"), "1");
    server.stop();
}

#[test]
fn catalogs_show_indexes() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE \"T x\" (id BIGINT, city TEXT)");
    server.sql("CREATE INDEX ON \"T x\" (city)");
    server.sql("CREATE INDEX b ON \"T x\" USING bloom (id)");
    let rows = server.sql("SELECT indexname, indexdef FROM pg_indexes ORDER BY 1");
    let text: Vec<String> = rows.iter().flatten().map(|cell| cell.clone().unwrap()).collect();
    assert_eq!(
        text,
        [
            "T x_city_inverted",
            "CREATE INDEX \"T x_city_inverted\" ON public.\"T x\" USING inverted (city)",
            "b",
            "CREATE INDEX b ON public.\"T x\" USING bloom (id) WITH (fpp='0.01')",
        ]
    );
    // As psql's \d asks.
    assert_eq!(
        server.value(
            "SELECT string_agg(c2.relname || ' ' || i.indisvalid || ' ' || pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), ', ' ORDER BY c2.relname)
             FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i
             WHERE c.relname = 'T x' AND c.relhasindex AND c.oid = i.indrelid AND i.indexrelid = c2.oid"
        ),
        "T x_city_inverted true CREATE INDEX \"T x_city_inverted\" ON public.\"T x\" USING inverted (city), \
         b true CREATE INDEX b ON public.\"T x\" USING bloom (id) WITH (fpp='0.01')"
    );
    assert_eq!(
        server.value(
            "SELECT string_agg(c.relname || ' ' || am.amname || ' ' || c2.relname, ', ' ORDER BY c.relname) FROM pg_catalog.pg_class c
             LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             LEFT JOIN pg_catalog.pg_class c2 ON i.indrelid = c2.oid WHERE c.relkind = 'i'"
        ),
        "T x_city_inverted inverted T x, b bloom T x"
    );
    assert_eq!(server.value("SELECT count(*) FROM information_schema.tables WHERE table_name = 'b'"), "0");
    assert_eq!(server.value("SELECT 'b'::regclass::text"), "b");
    // A name is one relation's.
    let taken = server.try_sql("CREATE TABLE b (id INT)").unwrap_err();
    assert_eq!(taken.code().unwrap().code(), "42P07");
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE definition LIKE '%city_inverted%'"), "2");
}

/// An index of some paths: asked where it knows what is asked, and only there; kept with its options.
#[test]
fn an_index_of_documents_may_be_limited_to_paths() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, doc JSONB)");
    for part in 0..2 {
        server.sql(&format!(
            "INSERT INTO t SELECT i, ('{{\"a\": {{\"b\": \"x' || (i % 500) || '\", \"c\": ' || (i % 400) || '}}, \"tags\": [\"t' || (i % 300) || '\"], \"big\": \"' || (i % 200) || '\"}}')::jsonb
             FROM generate_series({}, {}) AS g(i)",
            part * 5000,
            part * 5000 + 4999
        ));
        server.sql("SELECT rt.seal('t')");
    }
    server.sql(
        "CREATE INDEX parts ON t USING json (doc) WITH (paths = '{a.b,$.tags[*]}', exclude = 'tags.x', max_levels = 5)",
    );
    // Sealed with the index, and consuming.
    server.sql("INSERT INTO t SELECT i, '{\"a\": {\"b\": \"x7\"}, \"tags\": [\"t7\", {\"x\": 1}], \"big\": \"7\"}' FROM generate_series(10000, 10009) AS g(i)");
    server.sql("SELECT rt.seal('t')");
    server.sql("INSERT INTO t VALUES (10010, '{\"a\": {\"b\": \"x7\"}, \"tags\": [\"t7\"]}')");
    let ready = |server: &Server| {
        server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60))
    };
    ready(&server);
    let definition =
        "CREATE INDEX parts ON public.t USING json (doc) WITH (paths='a.b, tags', exclude='tags.x', max_levels='5')";
    // Condition, whether the index may be asked, and how many rows pass.
    let questions = [
        ("doc->'a'->>'b' = 'x7'", true, "31"),
        ("doc @> '{\"tags\": [\"t7\"]}'", true, "45"),
        ("doc @> '{\"a\": {\"b\": \"x7\"}, \"big\": \"7\"}'", true, "20"),
        // It may be: where nothing can pass the other side.
        ("doc->'a'->>'b' = 'x7' OR doc->>'big' = '8'", true, "81"),
        ("doc->>'big' = '7'", false, "60"),
        ("doc->'a' IS NOT NULL AND doc->>'big' = '7'", false, "60"),
        ("doc @> '{\"tags\": [{\"x\": 1}]}'", false, "10"),
        ("doc->'tags' IS NOT NULL", false, "10011"),
    ];
    let ask = |server: &Server| {
        assert_eq!(server.value("SELECT pg_get_indexdef('parts'::regclass)"), definition);
        assert_eq!(
            server.value("SELECT options FROM rt.indexes WHERE \"index\" = 'parts'"),
            "paths=(a.b, tags), exclude=(tags.x), max_levels=(5)"
        );
        for (condition, is_asked, count) in questions {
            for setting in ["always", "on", "off"] {
                let sql = format!("SET rt.use_indexes = {setting}; SELECT count(*) FROM t WHERE {condition}");
                assert_eq!(server.value(&sql), count, "{sql}");
            }
            let plan = server.sql(&format!("EXPLAIN SELECT count(*) FROM t WHERE {condition}"));
            let is_named = plan.iter().flatten().flatten().any(|line| line.contains("indexes=[parts]"));
            assert_eq!(is_named, is_asked, "{condition}: {plan:?}");
        }
    };
    ask(&server);
    server.kill_and_restart();
    ready(&server);
    ask(&server);
    // Made anew by its own definition, and by another one under the same name.
    server.sql("DROP INDEX parts");
    server.sql(definition);
    ready(&server);
    ask(&server);
    server.sql("DROP INDEX parts; CREATE INDEX parts ON t USING gin (doc) WITH (paths = 'big')");
    ready(&server);
    assert_eq!(server.value("SET rt.use_indexes = always; SELECT count(*) FROM t WHERE doc->'a'->>'b' = 'x7'"), "31");
    assert_eq!(server.value("SET rt.use_indexes = always; SELECT count(*) FROM t WHERE doc->>'big' = '7'"), "60");
    for options in [
        "paths = ''",
        "paths = 'a..b'",
        "max_levels = 0",
        "max_levels = 17",
        "paths = 'a.b', max_levels = 1",
        "path = 'a'",
    ] {
        let error = server.try_sql(&format!("CREATE INDEX ON t USING json (doc) WITH ({options})")).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{options}: {error:?}");
    }
    server.stop();
}

/// Rows that are still being consumed: their full chunks get the same indexes in memory, and lose those that are dropped.
#[test]
fn rows_in_memory_are_found_by_their_indexes() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (id BIGINT NOT NULL, city TEXT, code BIGINT, doc JSONB, msg TEXT, lat DOUBLE PRECISION, lng DOUBLE PRECISION)",
    );
    let insert = |from: u32, to: u32| {
        server.sql(&format!(
            "INSERT INTO t SELECT i, 'city ' || (i % 400), (i * 7919) % 1000003, jsonb_build_object('n', i % 1000, 'tags', jsonb_build_array('t' || (i % 300))),
                    'request ' || i || ' to host' || (i % 400), 52 + (i * 7919 % 10007) / 10007.0, 13 + (i * 104729 % 10009) / 10009.0
             FROM generate_series({from}, {}) AS g(i)",
            to - 1
        ));
    };
    insert(0, 15_000);
    for index in ["inverted (city)", "range (code)", "bloom (id)", "json (doc)", "text (msg)", "geo (lat, lng)"] {
        server.sql(&format!("CREATE INDEX ON t USING {index}"));
    }
    insert(15_000, 30_000);
    insert(30_000, 30_007);
    let conditions = [
        "city = 'city 7'",
        "city IN ('city 7', 'city 9') AND code > 500000",
        "code BETWEEN 1000 AND 2000",
        "doc @> '{\"tags\": [\"t33\"]}'",
        "doc->>'n' = '77' AND city <> 'city 1'",
        "msg @@ 'host7'",
        "msg @@ to_tsquery('host39:* & !host399') OR code = 7919",
        "geo_distance(lat, lng, 52.5, 13.5) < 2000",
    ];
    let ask = |indexes: &str, sql: &str, condition: &str| {
        explained(&server, &format!("SET rt.use_indexes = '{indexes}'; {sql} WHERE {condition}"))
    };
    let select = "SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM t";
    let analyze = "EXPLAIN ANALYZE SELECT sum(id) FROM t";
    let agree = |condition: &str| {
        let plain = ask("off", select, condition);
        assert_eq!(ask("on", select, condition), plain, "{condition}");
        assert_eq!(ask("always", select, condition), plain, "{condition}");
        plain
    };
    let mut answers = Vec::new();
    for condition in conditions {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !ask("on", analyze, condition).contains("rows_by_index=") {
            assert!(std::time::Instant::now() < until, "{condition}: {}", ask("on", analyze, condition));
            std::thread::sleep(Duration::from_millis(100));
        }
        answers.push(agree(condition));
    }
    assert_eq!(server.value("SELECT DISTINCT state FROM rt.segments"), "consuming");
    server.sql("DROP INDEX t_doc_json");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while ask("always", analyze, conditions[3]).contains("rows_by_index=") {
        assert!(std::time::Instant::now() < until, "{}", ask("always", analyze, conditions[3]));
        std::thread::sleep(Duration::from_millis(100));
    }
    let plain: Vec<String> = conditions.iter().map(|condition| agree(condition)).collect();
    assert_eq!(plain, answers);
    server.sql("SELECT rt.seal('t')");
    let sealed: Vec<String> = conditions.iter().map(|condition| agree(condition)).collect();
    assert_eq!(sealed, answers);
    server.stop();
}
