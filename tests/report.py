#!/usr/bin/env python3
"""Turns what Bazel says about a test run into result lines.

./dev calls it after each `bazel test`. It reads Bazel's build events rather than
the folder of test logs, which also holds the logs of earlier runs. For every test
case of every target it appends "PASSED target.case" or "FAILED target.case: why"
to a file; a target that could not be built or wrote no cases counts as one test.

Usage: report.py EVENTS_JSON RESULTS_FILE BAZEL_STATUS
"""

import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree

# Bazel's exit status when all is well, or when a pattern held no test.
OK, NO_TESTS = 0, 4


def read_events(path):
    try:
        with open(path, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError):
        return []


def first_line(text):
    lines = (text or "").strip().splitlines()
    return lines[0] if lines else "no message"


def cases_of(xml_path):
    """(name, why it failed or None) for each case of a JUnit file that ran."""
    ci = os.environ.get("CI") == "true"
    for case in xml.etree.ElementTree.parse(xml_path).iter("testcase"):
        if case.get("status") == "notrun":  # DISABLED_ in its name
            continue
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        fault = case.find("failure")
        if fault is None:
            fault = case.find("error")
        if fault is not None:
            yield name, first_line(fault.get("message") or fault.text)
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            if ci:
                yield name, "skipped, and nothing may be skipped here"
        else:
            yield name, None


def results_of_test(label, result):
    """The cases of one run of one target."""
    passed = result.get("status") == "PASSED"
    cases = []
    for output in result.get("testActionOutput", []):
        if output.get("name") == "test.xml":
            path = urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
            try:
                cases = [(label + " " + name, why) for name, why in cases_of(path)]
            except (OSError, xml.etree.ElementTree.ParseError):
                cases = []  # the target's own status speaks for it
    if passed:
        return cases or [(label, None)]
    if not any(why for _, why in cases):
        # It crashed or ran out of time: the cases it wrote, if any, do not say so.
        cases.append((label, result.get("status", "no status")))
    return cases


def main():
    events_path, results_path, status = sys.argv[1], sys.argv[2], int(sys.argv[3])
    results, tested, broken = [], set(), set()
    for event in read_events(events_path):
        key = event.get("id", {})
        if "testResult" in key:
            label = key["testResult"]["label"]
            tested.add(label)
            results += results_of_test(label, event.get("testResult", {}))
        elif "targetCompleted" in key and not event.get("completed", {}).get("success"):
            broken.add(key["targetCompleted"]["label"])
    results += [(label, "could not be built") for label in sorted(broken - tested)]
    if status not in (OK, NO_TESTS) and not any(why for _, why in results):
        results.append(("bazel test", f"it ended with status {status}"))

    with open(results_path, "a", encoding="utf-8") as out:
        for name, why in results:
            print(f"PASSED {name}" if why is None else f"FAILED {name}: {why}", file=out)


if __name__ == "__main__":
    main()
