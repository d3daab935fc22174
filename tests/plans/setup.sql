-- What the plans of this folder are about: four sealed segments of 3,000 orders in order of time, and a row that is consuming; visits that
-- are sorted, with a star-tree; very many keys in one segment.
CREATE TABLE orders (id BIGINT NOT NULL, city TEXT, status TEXT, price NUMERIC(10,2), km DOUBLE PRECISION, lat DOUBLE PRECISION, lng DOUBLE PRECISION, note TEXT, doc JSONB, ts TIMESTAMPTZ) WITH (time_column = 'ts');
INSERT INTO orders SELECT i * 3, 'city ' || (i * 7 % 40), 'status ' || (i % 4), ((i * 7919) % 10007)::numeric / 100, (i % 64) * 0.25, 52 + (i % 500) * 0.001, 13 + (i % 700) * 0.001, 'note ' || i || ' of order', ('{"a": {"b": "x' || (i % 50) || '"}, "n": ' || (i % 90) || '}')::jsonb, TIMESTAMPTZ '2026-01-01 00:00:00Z' + i * INTERVAL '1 minute' FROM generate_series(0, 2999) AS g(i);
SELECT rt.seal('orders');
INSERT INTO orders SELECT i * 3, 'city ' || (i * 7 % 40), 'status ' || (i % 4), ((i * 7919) % 10007)::numeric / 100, (i % 64) * 0.25, 52 + (i % 500) * 0.001, 13 + (i % 700) * 0.001, 'note ' || i || ' of order', ('{"a": {"b": "x' || (i % 50) || '"}, "n": ' || (i % 90) || '}')::jsonb, TIMESTAMPTZ '2026-01-01 00:00:00Z' + i * INTERVAL '1 minute' FROM generate_series(3000, 5999) AS g(i);
SELECT rt.seal('orders');
INSERT INTO orders SELECT i * 3, 'city ' || (i * 7 % 40), 'status ' || (i % 4), ((i * 7919) % 10007)::numeric / 100, (i % 64) * 0.25, 52 + (i % 500) * 0.001, 13 + (i % 700) * 0.001, 'note ' || i || ' of order', ('{"a": {"b": "x' || (i % 50) || '"}, "n": ' || (i % 90) || '}')::jsonb, TIMESTAMPTZ '2026-01-01 00:00:00Z' + i * INTERVAL '1 minute' FROM generate_series(6000, 8999) AS g(i);
SELECT rt.seal('orders');
INSERT INTO orders SELECT i * 3, 'city ' || (i * 7 % 40), 'status ' || (i % 4), ((i * 7919) % 10007)::numeric / 100, (i % 64) * 0.25, 52 + (i % 500) * 0.001, 13 + (i % 700) * 0.001, 'note ' || i || ' of order', ('{"a": {"b": "x' || (i % 50) || '"}, "n": ' || (i % 90) || '}')::jsonb, TIMESTAMPTZ '2026-01-01 00:00:00Z' + i * INTERVAL '1 minute' FROM generate_series(9000, 11999) AS g(i);
SELECT rt.seal('orders');
INSERT INTO orders VALUES (1, 'city 3', 'status 1', 1.5, 1, 52.1, 13.1, 'note', '{}', '2026-02-01 00:00:00Z');
CREATE TABLE visits (shop INT, city TEXT, at TIMESTAMP, amount INT);
CREATE INDEX ON visits USING sorted (shop);
INSERT INTO visits SELECT i * 7 % 100, 'city ' || (i % 5), TIMESTAMP '2026-01-01' + i * INTERVAL '1 minute', i % 10 FROM generate_series(0, 1999) AS g(i);
SELECT rt.seal('visits');
INSERT INTO visits SELECT i * 7 % 100, 'city ' || (i % 5), TIMESTAMP '2026-01-01' + i * INTERVAL '1 minute', i % 10 FROM generate_series(2000, 3999) AS g(i);
SELECT rt.seal('visits');
CREATE TABLE keys (k BIGINT, v INT);
INSERT INTO keys SELECT i * 7919 % 70001, i % 10 FROM generate_series(1, 70000) AS g(i);
SELECT rt.seal('keys');
CREATE INDEX ON visits USING star_tree (city, date_trunc('hour', at)) AGGREGATE (count(*), sum(amount)) WITH (max_leaf_records = 10);
CREATE INDEX by_city ON orders USING inverted (city);
CREATE INDEX by_price ON orders USING range (price);
CREATE INDEX by_id ON orders USING bloom (id);
CREATE INDEX by_doc ON orders USING json (doc);
CREATE INDEX by_note ON orders USING text (note);
CREATE INDEX by_place ON orders USING geo (lat, lng);
CREATE TABLE rides (id BIGINT PRIMARY KEY, city TEXT, tip INT, fare NUMERIC(10,2))
CREATE TABLE trips (id BIGINT PRIMARY KEY, city TEXT)
CREATE INDEX rides_star_tree ON rides USING star_tree (city) AGGREGATE (count(*), sum(tip), min(fare)) WITH (max_leaf_records = 10)
INSERT INTO rides SELECT i, 'city ' || (i % 5)::text, (i % 7)::int, (i % 100) / 4.0 FROM generate_series(1, 5000) AS s(i)
SELECT rt.seal('rides')
INSERT INTO rides SELECT i, 'city 1', 1, 1.00 FROM generate_series(1, 100) AS s(i)
INSERT INTO trips SELECT i, 'city ' || i % 200 FROM generate_series(1, 70000) AS s(i)
SELECT rt.seal('trips')
INSERT INTO trips SELECT i, 'city 1' FROM generate_series(1, 100) AS s(i)
