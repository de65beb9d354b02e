"""A stock client in Python: what `thrift --gen py` makes, and Debian's python3-thrift.

    client.py FOLDER_OF_THE_GENERATED_CODE ADDRESS

Calls a worker as stock.h sets it up; ends with 0 when all went as it should.
"""

import struct
import sys

sys.path.insert(0, sys.argv[1])

from gradferry_thrift import Gradferry  # noqa: E402
from gradferry_thrift.ttypes import CallRequest, DType, Error, HelloRequest, Tensor, Value  # noqa: E402
from thrift.protocol import TBinaryProtocol  # noqa: E402
from thrift.transport import TSocket, TTransport  # noqa: E402

INVALID_ARGUMENT, NOT_FOUND = 3, 5


def connect(address):
    if address.startswith("unix://"):
        socket = TSocket.TSocket(unix_socket=address[len("unix://"):])
    else:
        host, port = address[len("tcp://"):].rsplit(":", 1)
        socket = TSocket.TSocket(host, int(port))
    socket.setTimeout(20000)
    transport = TTransport.TFramedTransport(socket)
    transport.open()
    return Gradferry.Client(TBinaryProtocol.TBinaryProtocol(transport))


def floats(*values):
    data = struct.pack("<%df" % len(values), *values)
    return Value(tensor=Tensor(dtype=DType.FLOAT32, sizes=[len(values)], data=data))


def error_of(call):
    try:
        call()
    except Error as error:
        return error
    raise AssertionError("there was no error")


client = connect(sys.argv[2])
answer = client.hello(HelloRequest(name="python", id=101, to_name="server", to=0))
assert answer.name == "server", answer

arguments = [Value(), Value(boolean=True), Value(integer=5), Value(text="text"), Value(bytes=b"\x00\xff"),
             Value(items=[Value(number=0.5), floats(1, 2, 3)]), floats(*range(10000))]
result = client.call(CallRequest(name="echo", arguments=arguments))
assert result.results == arguments, result

product = client.call(CallRequest(name="aten::mul", overload="Tensor", is_operator=True,
                                  arguments=[floats(1, 2, 3), floats(4, 5, 6)]))
assert struct.unpack("<3f", product.results[0].tensor.data) == (4, 10, 18), product

failed = error_of(lambda: client.call(CallRequest(name="fail", arguments=[])))
assert failed.code == INVALID_ARGUMENT and "no such luck" in failed.message, failed
unknown = error_of(lambda: client.call(CallRequest(name="nobody", arguments=[])))
assert unknown.code == NOT_FOUND, unknown

# Several under way on one connection.
for number in range(20):
    client.send_call(CallRequest(name="echo", arguments=[Value(integer=number)]))
assert sorted(client.recv_call().results[0].integer for _ in range(20)) == list(range(20))
print("all well")
