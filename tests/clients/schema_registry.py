"""confluent-kafka's clients against the server as a schema registry; with a Kafka (TIDEMILL_TEST_KAFKA) also what they write, read by the server, and the other way."""
import base64
import datetime as dt
import os
import sys
import time
import uuid
from decimal import Decimal

try:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from confluent_kafka.schema_registry.json_schema import JSONSerializer
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
except ImportError as error:
    print(f"SKIPPED schema_registry: {error}")
    sys.exit(0)
import psycopg
from confluent_kafka.schema_registry.confluent.types import decimal_pb2  # noqa: F401  (known to the pool)
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

ORDER = """{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"""
WITH_CITY = ORDER.replace('"long"},', '"long"}, {"name": "city", "type": "string", "default": "none"},', 1)
WITH_PRICE = ORDER.replace('"long"},', '"long"}, {"name": "price", "type": "double"},', 1)


def check(name, got, wanted):
    assert got == wanted, f"{name}: got {got!r}, wanted {wanted!r}"


def refused(name, call, status, code):
    try:
        call()
    except SchemaRegistryError as error:
        check(name, (error.http_status_code, error.error_code), (status, code))
        return
    raise AssertionError(f"{name}: nothing was refused")


def subjects(client):
    first = client.register_schema("orders-value", Schema(ORDER, "AVRO"))
    second = client.register_schema("orders-value", Schema(WITH_CITY, "AVRO"))
    check("ids", (first, second), (1, 2))
    check("the same once more", client.register_schema("orders-value", Schema(ORDER, "AVRO")), 1)
    check("subjects", client.get_subjects(), ["orders-value"])
    check("versions", client.get_versions("orders-value"), [1, 2])
    latest = client.get_latest_version("orders-value")
    check("latest", (latest.version, latest.schema_id, latest.subject), (2, 2, "orders-value"))
    check("by id", client.get_schema(1).schema_str, ORDER)
    check("look-up", client.lookup_schema("orders-value", Schema(ORDER, "AVRO")).version, 1)
    check("compatible", client.test_compatibility("orders-value", Schema(WITH_PRICE, "AVRO")), False)
    refused("incompatible", lambda: client.register_schema("orders-value", Schema(WITH_PRICE, "AVRO")), 409, 409)
    refused("no subject", lambda: client.get_latest_version("none"), 404, 40401)
    refused("no schema", lambda: SchemaRegistryClient(CONFIG).get_schema(99), 404, 40403)
    refused("invalid", lambda: client.register_schema("bad", Schema("{}", "AVRO")), 422, 42201)
    client.set_compatibility("orders-value", "NONE")
    check("level", client.get_compatibility("orders-value"), "NONE")
    check("level of all", client.get_compatibility(), "BACKWARD")
    check("third", client.register_schema("orders-value", Schema(WITH_PRICE, "AVRO")), 3)
    check("delete", client.delete_version("orders-value", 3), 3)
    check("delete all", client.delete_subject("orders-value"), [1, 2])
    check("gone", client.get_subjects(), [])
    check("for good", client.delete_subject("orders-value", permanent=True), [1, 2, 3])


def ride_type():
    """The class of a message, of a file that no compiler has written."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="ride.proto", package="trips", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto"])
    ride = file.message_type.add(name="Ride")
    ride.nested_type.add(name="Stop").field.add(name="place", number=1, type=field.TYPE_STRING, label=1)
    entry = ride.nested_type.add(name="ByCityEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".trips.Ride.Stop", label=1)
    ride.field.add(name="id", number=1, type=field.TYPE_INT64, label=1)
    ride.field.add(name="at", number=2, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    ride.field.add(name="by_city", number=3, type=field.TYPE_MESSAGE, type_name=".trips.Ride.ByCityEntry", label=3)
    ride.field.add(name="card", number=4, type=field.TYPE_STRING, label=1, oneof_index=0)
    ride.field.add(name="cash", number=5, type=field.TYPE_BOOL, label=1, oneof_index=0)
    ride.field.add(name="note", number=6, type=field.TYPE_STRING, label=1, oneof_index=1, proto3_optional=True)
    ride.oneof_decl.add(name="payment")
    ride.oneof_decl.add(name="_note")
    descriptor_pool.Default().Add(file)
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("trips.Ride"))


def serializers(client):
    """What serializers register and write, deserializers read."""
    context = SerializationContext("rides", MessageField.VALUE)
    row = {"id": 7, "at": 1_700_000_000_000}
    framed = AvroSerializer(client, ORDER, lambda row, _: row)(row, context)
    check("frame", framed[0], 0)
    check("avro", AvroDeserializer(client)(framed, context)["id"], 7)
    # Nested types, a map, a oneof, an optional field, an import that everybody knows. The client sends the file as bytes.
    ride = ride_type()
    context = SerializationContext("trips", MessageField.VALUE)
    row = ride(id=7, by_city={"Oslo": ride.Stop(place="x")}, card="c", note="")
    row.at.FromMilliseconds(1_700_000_000_123)
    framed = ProtobufSerializer(ride, client, {"use.deprecated.format": False})(row, context)
    read = ProtobufDeserializer(ride, {"use.deprecated.format": False}, client)
    check("protobuf", read(framed, context), row)
    latest = client.get_latest_version("trips-value").schema
    check("kind", latest.schema_type, "PROTOBUF")
    check("as a text for others", "map<string, .trips.Ride.Stop> by_city = 3;" in latest.schema_str, True)
    context = SerializationContext("people", MessageField.VALUE)
    person = '{"title": "Person", "type": "object", "properties": {"name": {"type": "string"}}}'
    check("json", JSONSerializer(person, client)({"name": "x"}, context)[:1], b"\0")


def through_kafka(client, server, connection, brokers):
    """Two versions of a schema by AvroSerializer into a topic, rows of one table."""
    topic = f"registry-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": brokers})
    for made in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": brokers})
    context = SerializationContext(topic, MessageField.VALUE)

    def send(schema, rows):
        write = AvroSerializer(client, schema, lambda row, _: row)
        for row in rows:
            producer.produce(topic, value=write(row, context))
        check("waiting", producer.flush(30), 0)

    send(ORDER, [{"id": n, "at": 1000 * n} for n in range(100)])
    connection.execute(
        f"CREATE SOURCE orders_raw (id BIGINT, city TEXT, at TIMESTAMPTZ) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', "
        f"format = 'avro', schema_registry = '{CONFIG['url']}')")
    connection.execute("CREATE TABLE orders (id BIGINT, city TEXT, at TIMESTAMPTZ) FROM SOURCE orders_raw")
    connection.execute("SELECT rt.drain('orders_raw')")
    send(WITH_CITY, [{"id": n, "city": "Oslo", "at": 1000 * n} for n in range(100, 200)])
    connection.execute("SELECT rt.drain('orders_raw')")
    rows = connection.execute("SELECT count(*), count(city), sum(id), extract(epoch FROM max(at))::INT FROM orders").fetchall()
    check("rows", rows, [(200, 100, sum(range(200)), 199)])


def from_sinks(client, connection, brokers):
    """What pipelines write in Avro and Protobuf, other clients read."""
    rows = {}
    for form in ("avro", "protobuf"):
        topic = f"sink-{form}-{uuid.uuid4().hex[:8]}"
        connection.execute(
            f"CREATE SINK out_{form} WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', create_topic = 'true', "
            f"format = '{form}', schema_registry = '{CONFIG['url']}', schema_name = 'shop.Sold', key = 'id')")
        connection.execute(
            f"CREATE PIPELINE p_{form} INTO out_{form} AS SELECT id, city, at, (id * 1.25)::NUMERIC(10, 2) AS price FROM orders_raw")
        connection.execute("SELECT rt.drain('orders_raw')")
        rows[topic] = records(topic, brokers)
        check(f"{form} records", len(rows[topic]), 200)
    avro, protobuf = rows
    read = AvroDeserializer(client)
    found = [read(value, SerializationContext(avro, MessageField.VALUE)) for value in rows[avro]]
    found.sort(key=lambda row: row["id"])
    check("avro row", found[150], {"id": 150, "city": "Oslo", "at": dt.datetime(1970, 1, 1, 0, 2, 30, tzinfo=dt.timezone.utc),
                                   "price": Decimal("187.50")})
    check("avro NULL", (found[0]["city"], found[0]["price"]), (None, Decimal("0.00")))
    file = descriptor_pb2.FileDescriptorProto.FromString(
        base64.b64decode(client.get_schema(client.get_latest_version(f"{protobuf}-value").schema_id, fmt="serialized").schema_str))
    pool = descriptor_pool.Default()
    pool.Add(file)
    sold = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Sold"))
    read = ProtobufDeserializer(sold, {"use.deprecated.format": False})
    found = [read(value, SerializationContext(protobuf, MessageField.VALUE)) for value in rows[protobuf]]
    found.sort(key=lambda row: row.id)
    check("protobuf row", (found[150].city, found[150].at.seconds, found[0].HasField("city")), ("Oslo", 150, False))
    check("protobuf decimal", (int.from_bytes(found[150].price.value, "big", signed=True), found[150].price.scale), (18750, 2))


def records(topic, brokers):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest",
                         "isolation.level": "read_committed", "enable.partition.eof": True})
    consumer.subscribe([topic])
    values = []
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            values.append(message.value())
        elif message is not None:
            break
    consumer.close()
    return values


with Server(sys.argv[1]) as server:
    CONFIG = {"url": f"http://127.0.0.1:{server.http}/api/v1/schemas"}
    client = SchemaRegistryClient(CONFIG)
    subjects(client)
    serializers(client)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        names = connection.execute("SELECT DISTINCT subject FROM rt.subjects ORDER BY 1").fetchall()
        check("rt.subjects", [name for (name,) in names], ["people-value", "rides-value", "trips-value"])
        brokers = os.environ.get("TIDEMILL_TEST_KAFKA")
        if brokers:
            through_kafka(client, server, connection, brokers)
            from_sinks(client, connection, brokers)
        else:
            print("SKIPPED through_kafka: no Kafka broker (set TIDEMILL_TEST_KAFKA)")
print("ok")
