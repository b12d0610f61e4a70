"""Run by an interpreter that has eql: takes events as JSON lines, prints events per second by the number of sequences."""

import json
import sys
import time

import eql  # type: ignore[import-not-found]  # of another environment

_QUERY = (
    'sequence by pid with maxspan=5m [file where wildcard(path, "/data/set{n}/*")] [network where dst_port == {port}]'
)
_TYPES = {"open": "file", "connect": "network"}


def _rate(count: int, events: list[eql.Event]) -> float:
    engine = eql.PythonEngine({"flatten": True})
    with eql.parser.elasticsearch_syntax:
        engine.add_queries([eql.parse_query(_QUERY.format(n=n, port=10_000 + n)) for n in range(count)])
    start = time.process_time()
    for event in events:
        engine.stream_event(event)
    return len(events) / (time.process_time() - start)


def main() -> None:
    """Measures as many sequences as the arguments say, each in turn."""
    facts = [json.loads(line) for line in sys.stdin]
    events = [eql.Event(_TYPES.get(fact["event"], "other"), fact["time_ns"] // 100, fact) for fact in facts]
    print(json.dumps({count: round(_rate(int(count), events)) for count in sys.argv[1:]}))


if __name__ == "__main__":
    main()
