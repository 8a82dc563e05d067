"""networkx: a graph is built, and the distances in it computed."""

import networkx

graph = networkx.Graph()
for node in range(120_000):
    graph.add_edge(node, node * 7 // 8, weight=node % 13)
    graph.add_edge(node, node // 3, weight=node % 7)
lengths = networkx.single_source_dijkstra_path_length(graph, 0)
print(graph.number_of_edges(), sum(lengths.values()))
